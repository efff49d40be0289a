"""The description of one job, which goes to any machine as JSON. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace

from local_scorer.models.recipes import WIDTHS, Recipe
from local_scorer.runs import schema, store
from local_scorer.runs.store import RunFolder

TRAINED_ROLES = ("original", "retrained", "ceiling")
ROLES = (*TRAINED_ROLES, "unlearned", "submitted")
DEVICES = ("cpu", "cuda")
HASH = re.compile(r"[0-9a-f]{1,64}")  # becomes part of a file name


@dataclass(frozen=True)
class Job:
    """A description of one job, complete enough to run it on any machine that has the data.

    Attributes:
        role: "original", "retrained", "ceiling", "unlearned" or "submitted".
        index: number of the model within its role, from 0.
        data: folder of the prepared dataset; `fingerprint` is its content hash.
        seed: the run's seed; the job's own seed follows from it, the role and the index.
        device: "cpu" or "cuda".
        entry, entry_hash: name and hash of the entry's source, or of the zip for role "submitted".
        submission: the zip that holds checkpoint `index`, for role "submitted".
        original: index of the original that an entry unlearns from.
        weights: hash that the original's weights are stored under, where a reference pack gave them; None where
            the original is trained at home.
        outputs: of the nets, at least the number of classes; 0 for one per class.
    """

    role: str
    index: int
    data: str
    fingerprint: str
    recipe: Recipe
    width: int
    seed: int
    device: str
    entry: str | None = None
    entry_hash: str | None = None
    submission: str | None = None
    original: int = 0
    weights: str | None = None
    outputs: int = 0

    @property
    def key(self) -> str:
        """Content key: equal for jobs with equal results, wherever data and entry lie."""
        return store.content_key(
            {
                "role": self.role,
                "index": self.index,
                "data": self.fingerprint,
                "recipe": asdict(self.recipe),
                "width": self.width,
                "seed": self.seed,
                "device": self.device,
                "entry": self.entry_hash,
                "original": self.original,
                "weights": self.weights,
                **({"outputs": self.outputs} if self.outputs else {}),
            }
        )

    @property
    def job_seed(self) -> int:
        return derive_seed(self.seed, self.role, self.index, self.original)

    @property
    def original_job(self) -> Job:
        """The job that trains the original model which this job unlearns from."""
        return replace(
            self,
            role="original",
            index=self.original,
            original=0,
            weights=None,
            entry=None,
            entry_hash=None,
            submission=None,
        )

    @property
    def weights_key(self) -> str:
        """The name that the weights of the original are stored under."""
        return self.weights or self.original_job.key

    @property
    def evaluation(self) -> tuple[object, ...]:
        """What the evaluation of a run's checkpoint depends on; equal for the runs of one entry."""
        return (self.entry_hash, self.data, self.fingerprint, self.width, self.outputs)

    @property
    def label(self) -> str:
        """What this job works at, in one or two words."""
        return self.entry or self.role

    def is_done(self, folder: RunFolder) -> bool:
        """Say whether its result is in `folder`."""
        return folder.is_done(self.key, needs_weights=self.role == "original")

    def to_json(self) -> str:
        """Return the job as JSON text."""
        return json.dumps({"schema": store.SCHEMA, **asdict(self)}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return the job that `to_json` wrote.

        Raises:
            ValueError: the text is no job of this version, or a field has a wrong type or value.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"The job is not JSON ({error}).") from error
        if not isinstance(content, dict) or content.pop("schema", None) != store.SCHEMA:
            raise ValueError(f"The job is not of schema {store.SCHEMA}: another version of the scorer wrote it.")
        try:
            job = schema.read(cls, content)
        except ValueError as error:
            raise ValueError(f"The job cannot be used: {error}.") from error
        job._check_values()
        return job

    def _check_values(self) -> None:
        known = {"role": ROLES, "device": DEVICES, "width": WIDTHS}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"The job's {name} must be one of {values}, found {getattr(self, name)!r}.")
        if self.index < 0 or self.original < 0 or self.outputs < 0:
            raise ValueError("The job's index, original and outputs must not be negative.")
        for name in ("entry_hash", "weights"):
            if getattr(self, name) is not None and not HASH.fullmatch(getattr(self, name)):
                raise ValueError(f"The job's {name} must be a hash in hexadecimal.")
        if (self.entry_hash is None) != (self.role in TRAINED_ROLES):
            raise ValueError("A job of an entry or a submission has an entry_hash, and any other has none.")
        if (self.submission is None) != (self.role != "submitted"):
            raise ValueError("A job has a submission if its role is 'submitted', and otherwise none.")


def derive_seed(run_seed: int, role: str, index: int, original: int = 0) -> int:
    """Return the seed of one job, in ``[0, 2**31)``, so that numpy and torch both take it.

    Runs from different originals have seeds of their own.

    >>> derive_seed(0, "retrained", 0) != derive_seed(0, "ceiling", 0)
    True
    """
    name = f"{run_seed}/{role}/{index}" + (f"/{original}" if original else "")
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
