"""The run folder: finished jobs under content keys, written atomically, read without pickle.

out/jobs/KEY.npz      a finished job: its presence means that it is done
out/jobs/KEY.json     a failed job: what went wrong, replaced when the job is tried again
out/weights/KEY.pt    weights of an original model (state dict)
out/entries/HASH.py   the exact text of each entry that was run
out/logs/KEY.log      what a job printed
out/work/             locks and half-done things; safe to delete when nothing runs
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import math
import os
import platform
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from local_scorer.models.recipes import Recipe
from local_scorer.runs import schema
from local_scorer.runs.arrays import read_array, refuse_large

try:
    import fcntl
except ImportError:  # Windows: two runs at once then do some work twice, and still agree
    fcntl = None

SCHEMA = 2
ACCURACIES = ("retain", "forget", "validation", "test")
LOGITS = ("forget", "validation", "test")
NUMBERS = ("wall_seconds", "cpu_seconds", *(f"{split}_accuracy" for split in ACCURACIES))
MOST_BYTES = 256 << 20  # that the result of a job may unpack to
FAILURES = ("exception", "signature", "weights", "time-out", "clock", "memory", "killed", "unreadable")
LONGEST_REASON, LONGEST_DETAILS = 2_000, 20_000  # characters


@dataclass(frozen=True)
class Environment:
    """The machine and the software that made a result; `packages` has name -> version, None if not installed."""

    python: str
    system: str
    processor: str
    cores: int
    packages: dict[str, str | None]
    toolkit_commit: str | None = None


@dataclass(frozen=True)
class Header:
    """What a finished job says about itself.

    Attributes:
        role, index, entry, entry_hash, fingerprint, recipe, width, seed, original, device: as of the job.
        data: name of the prepared dataset.
        job_seed: the seed that follows from the run's.
        workers: jobs at a time on the machine; `threads` of each, and `gpu` its name.
        weights_sha256: hash of the file of weights, of an original.
        finished: when, in seconds since 1970; None in results of earlier versions.
    """

    role: str
    index: int
    entry: str | None
    entry_hash: str | None
    data: str
    fingerprint: str
    recipe: Recipe
    width: int
    seed: int
    job_seed: int
    original: int
    device: str
    workers: int
    threads: int
    gpu: str | None
    environment: Environment
    weights_sha256: str | None = None
    finished: float | None = None

    @property
    def machine(self) -> str:
        """The kind of machine: times of one kind can be compared with each other."""
        made_on = self.environment
        parts = [made_on.processor, f"{made_on.cores} cores", f"{self.threads} threads", self.gpu]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class JobResult:
    """What a finished job leaves behind.

    Attributes:
        header: which job it was, and where it was done.
        logits: split name -> float32 ``[n_split, n_classes]``, for the splits in `LOGITS`.
        labels: split name -> int64 ``[n_split]``, for the splits in `LOGITS`.
        accuracy: split name -> share of pictures whose age group is predicted, for `ACCURACIES`.
        wall_seconds, cpu_seconds: of training or of ``unlearning()`` alone.
        retain_confidence: float32 ``[n_retain]``, the logit-scaled confidence on the retain pictures.
    """

    header: Header
    logits: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    accuracy: dict[str, float]
    wall_seconds: float
    cpu_seconds: float
    retain_confidence: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))


@dataclass(frozen=True)
class Failure:
    """Why a job has no result. `kind` is one of `FAILURES`; `details` are the last lines of an exception."""

    kind: str
    reason: str
    details: str = ""
    seconds: float | None = None

    @classmethod
    def from_json(cls, text: str | bytes) -> Failure:
        """Read a failure that foreign code may have written; text that is too long is cut.

        Raises:
            ValueError: it has a wrong or missing field, or an unknown kind.
        """
        found = schema.from_json(cls, text)
        if found.kind not in FAILURES:
            raise ValueError(f"kind must be one of {', '.join(FAILURES)}, found {found.kind[:80]!r}")
        return replace(found, reason=found.reason[:LONGEST_REASON], details=found.details[-LONGEST_DETAILS:])


def content_key(content: dict[str, Any]) -> str:
    """Return a short hash that is equal for equal content.

    >>> content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    True
    """
    text = json.dumps({"schema": SCHEMA, **content}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the whole new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class RunFolder:
    """Results, weights, locks and logs of one ``--out`` folder."""

    def __init__(self, root: Path | str):
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f"{self.root} is a file; name a folder with --out.")

    def result_path(self, key: str) -> Path:
        return self.root / "jobs" / f"{key}.npz"

    @property
    def pack_path(self) -> Path:
        return self.root / "reference.npz"

    def weights_path(self, key: str) -> Path:
        return self.root / "weights" / f"{key}.pt"

    def entry_path(self, digest: str) -> Path:
        return self.root / "entries" / f"{digest}.py"

    def log_path(self, key: str) -> Path:
        return self.root / "logs" / f"{key}.log"

    def save_result(self, key: str, result: JobResult) -> Path:
        """Write a finished job under its key."""
        arrays: dict[str, np.ndarray] = {
            "header": np.array(
                json.dumps({**asdict(result.header), "schema": SCHEMA, "key": key}, sort_keys=True)
            ),
            "wall_seconds": np.float64(result.wall_seconds),
            "cpu_seconds": np.float64(result.cpu_seconds),
            "retain_confidence": result.retain_confidence.astype(np.float32, copy=False),
        }
        for split in LOGITS:
            arrays[f"{split}_logits"] = result.logits[split].astype(np.float32, copy=False)
            arrays[f"{split}_labels"] = result.labels[split].astype(np.int64, copy=False)
        for split in ACCURACIES:
            arrays[f"{split}_accuracy"] = np.float64(result.accuracy[split])
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomically(self.result_path(key), buffer.getvalue())
        (self.root / "jobs" / f"{key}.json").unlink(missing_ok=True)
        return self.result_path(key)

    def load_result(self, key: str) -> JobResult:
        """Read a finished job.

        Raises:
            FileNotFoundError: the job is not done.
            ValueError: the file is damaged, or another version wrote it.
        """
        path = self.result_path(key)
        with _damage_is_told(path), zipfile.ZipFile(path) as archive:
            refuse_large(archive, MOST_BYTES)
            numbers = {name: float(read_array(archive, name, np.float64, 0)) for name in NUMBERS}
            result = JobResult(
                header=_header(archive, key),
                logits={split: read_array(archive, f"{split}_logits", np.float32, 2) for split in LOGITS},
                labels={split: read_array(archive, f"{split}_labels", np.int64, 1) for split in LOGITS},
                accuracy={split: numbers[f"{split}_accuracy"] for split in ACCURACIES},
                wall_seconds=numbers["wall_seconds"],
                cpu_seconds=numbers["cpu_seconds"],
                retain_confidence=read_array(archive, "retain_confidence", np.float32, 1),
            )
            _check(result)
            return result

    def load_header(self, key: str) -> Header:
        """Read what a finished job says about itself, and none of its arrays; errors as for `load_result`."""
        path = self.result_path(key)
        with _damage_is_told(path), zipfile.ZipFile(path) as archive:
            refuse_large(archive, MOST_BYTES)
            return _header(archive, key)

    def is_done(self, key: str, needs_weights: bool = False) -> bool:
        """Say whether a job is finished; a damaged result is moved aside and counts as not done."""
        if not self.result_path(key).is_file() or (needs_weights and not self.weights_path(key).is_file()):
            return False
        try:
            header = self.load_result(key).header
            if needs_weights:
                content = self.weights_path(key).read_bytes()
                if header.weights_sha256 != hashlib.sha256(content).hexdigest():
                    return False
        except ValueError:
            self.result_path(key).replace(self.result_path(key).with_suffix(".damaged"))
            return False
        except FileNotFoundError:
            return False
        return True

    def discard(self, key: str) -> None:
        """Forget the result and the failure of a job."""
        self.result_path(key).unlink(missing_ok=True)
        (self.root / "jobs" / f"{key}.json").unlink(missing_ok=True)

    def save_failure(self, key: str, failure: Failure) -> None:
        text = json.dumps(asdict(failure), indent=2, ensure_ascii=False)
        write_atomically(self.root / "jobs" / f"{key}.json", text.encode())

    def load_failure(self, key: str) -> Failure | None:
        """Return why a job failed, or None if it has not failed; a record that is damaged is a failure too."""
        path = self.root / "jobs" / f"{key}.json"
        try:
            return Failure.from_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            return Failure("unreadable", f"The record of this failure, {path}, is damaged: {error}.")

    def keep_entry(self, source: str, digest: str) -> Path:
        """Keep the text of an entry under its hash; jobs run this copy, so later edits do not reach them."""
        path = self.entry_path(digest)
        if not path.is_file() or path.read_text(encoding="utf-8") != source:
            write_atomically(path, source.encode())
        return path

    def new_work_folder(self, key: str) -> Path:
        """Make an empty scratch folder for one try at a job."""
        (self.root / "work").mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{key}-", dir=self.root / "work"))

    @staticmethod
    def drop_work_folder(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> None:
        """Delete the scratch folders of processes that have ended without doing so themselves."""
        for folder in (self.root / "work").glob("*-*/"):
            lock = self.try_lock(folder.name.partition("-")[0])
            if lock is not None:
                self.drop_work_folder(folder)
                lock.close()

    def try_lock(self, key: str) -> IO[str] | None:
        """Take the lock of a job; None if another process holds it. Close the returned file to free it.

        The operating system frees the lock when its holder ends, however that happens.
        """
        path = self.root / "work" / f"{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file


def environment() -> Environment:
    """Return what a reader needs to know about the machine and the software that made a result."""
    versions = {}
    for package in ("torch", "torchvision", "numpy", "pandas", "scikit-learn"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return Environment(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor_name(),
        cores=usable_cores(),
        packages=versions,
        toolkit_commit=_toolkit_commit(),
    )


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check(result: JobResult) -> None:
    """Raise a ValueError where the parts of a result do not fit together."""
    for split, labels in result.labels.items():
        n, n_classes = result.logits[split].shape
        if len(labels) != n:
            raise ValueError(f"{split} has {n} rows of logits and {len(labels)} labels")
        if n and not 0 <= labels.min() <= labels.max() < n_classes:
            raise ValueError(f"a label of {split} is not one of {n_classes} classes")
    for split, share in result.accuracy.items():
        if not (math.isnan(share) or 0 <= share <= 1):
            raise ValueError(f"the accuracy on {split} is {share}")
    for seconds in (result.wall_seconds, result.cpu_seconds):
        if not (math.isnan(seconds) or 0 <= seconds < math.inf):
            raise ValueError(f"it took {seconds} seconds")


def _header(archive: zipfile.ZipFile, key: str) -> Header:
    """Return the header among the arrays of a finished job; only this member is unpacked."""
    content = json.loads(str(read_array(archive, "header", n_axes=0)))
    if content["key"] != key:
        raise ValueError("it belongs to another job")
    if content["schema"] != SCHEMA:
        raise ValueError(f"it has schema {content['schema']}, this version reads {SCHEMA}")
    return schema.read(Header, content, "header", ignore_unknown=True)


@contextlib.contextmanager
def _damage_is_told(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # numpy and zipfile raise whatever the damaged bytes lead to
        raise ValueError(
            f"{path} is damaged ({error}). Delete it and run the same command again: only this job is redone."
        ) from error


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _toolkit_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
