"""Run jobs on a Ray cluster: each task is ``python -m local_scorer job FILE`` on some node.

Results go through the run folder, which all nodes share, so a task returns nothing but an exit code. A task that
is lost with its node or its worker is tried again; a failure of an entry is a result, and is not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from local_scorer.execution import interrupts
from local_scorer.execution.job import Job
from local_scorer.runs import store
from local_scorer.runs.store import Failure, RunFolder

if TYPE_CHECKING:
    from ray import ObjectRef

PROGRAM = Path(__file__).resolve().parents[2]  # where ``python -m local_scorer`` is found
TRIES = 4  # at a job whose node or worker is lost
PROBE_SECONDS = 120.0
DONE, FAILED = 0, 3  # exit codes of the command
TAIL = 500  # characters of what the command said


@dataclass
class _Run:
    job: Job
    limit: float | None
    file: Path
    tries: int = 0


class RayEngine:
    """The nodes of a Ray cluster. Open it in a ``with`` block, which ends what runs at its end."""

    def __init__(
        self,
        folder: RunFolder,
        device: str = "cpu",
        workers: int = 0,
        address: str | None = None,
        sandbox: str = "auto",
    ):
        """Connect to the cluster at `address`; without one, start Ray on this machine.

        Args:
            device: "cpu", a core for each job, or "cuda", a GPU or a share of one.
            workers: the most jobs at a time; 0 for as many as the cluster has cores or GPUs. With more workers
                than GPUs, several jobs share a GPU.
            sandbox: "auto", "required" or "off", for the nodes' own engines.

        Raises:
            ValueError: Ray is not installed, there is no such cluster, or a node does not see the run folder.
        """
        self.folder = RunFolder(folder.root.absolute())
        self.device = device
        self._most = workers
        self._sandbox = sandbox
        self._ray = _import_ray()
        self._running: dict[ObjectRef, _Run] = {}
        with _signals_kept():
            try:
                self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ValueError(f"There is no Ray cluster to be used ({error}). See --address.") from error
        try:
            self._check_nodes()
        except BaseException:
            self._ray.shutdown()
            raise

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def slots(self) -> int:
        """As many jobs as the nodes that are alive have room for, and no more than asked for."""
        room = sum(map(self._room_of, self._nodes()))
        return max(1, min(room, self._most) if self._most else room)

    def submit(self, job: Job, limit: float | None = None) -> None:
        """Queue a job; `limit` is in seconds inside ``unlearning()``."""
        file = self.folder.root / "work" / f"{job.key}.job.json"
        store.write_atomically(file, job.to_json().encode())
        self._start(_Run(job, limit, file))

    def wait(self, timeout: float) -> list[tuple[Job, Failure | None]]:
        """Wait up to `timeout` seconds; return the jobs that ended, with their failure or None."""
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), timeout=timeout)
        ended = []
        for reference in ready:
            run = self._running.pop(reference)
            try:
                code, said = self._ray.get(reference)
                said = said.strip() or f"exit code {code}"
            except self._ray.exceptions.RayError as error:
                code, said = None, str(error).strip().partition("\n")[0]
            if code == DONE and run.job.is_done(self.folder):
                outcome = None
            elif code == FAILED:
                outcome = self.folder.load_failure(run.job.key) or Failure("exception", said)
            elif code is not None and code > 0 and code != interrupts.INTERRUPTED:
                raise RuntimeError(f"A node could not run a job: {said}")
            elif run.tries < TRIES:
                self._start(run)
                continue
            else:
                reason = f"Its node or worker was lost {TRIES} times, at last with: {said[:TAIL]}"
                outcome = Failure("killed", reason)
            run.file.unlink(missing_ok=True)
            ended.append((run.job, outcome))
        return ended

    def close(self) -> None:
        """End whatever is still running, and leave the cluster; its jobs are not done."""
        for reference, run in self._running.items():
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(reference, force=True)  # the command ends with its worker
            run.file.unlink(missing_ok=True)
        self._running.clear()
        self._ray.shutdown()

    def _start(self, run: _Run) -> None:
        run.tries += 1
        nodes = self._nodes()
        most = max(map(self._room_of, nodes), default=1)  # jobs that share the largest node, for their memory
        arguments = [str(run.file), "--out", str(self.folder.root), "--workers", str(max(1, most))]
        arguments += ["--sandbox", self._sandbox]
        if run.limit is not None:
            arguments += ["--limit", repr(run.limit)]
        resources = {"num_cpus": 1} if self.device == "cpu" else {"num_cpus": 0, "num_gpus": self._share_of_gpu()}
        task = self._ray.remote(max_retries=0, **resources)(_run_command)
        self._running[task.remote(arguments, str(PROGRAM))] = run

    def _nodes(self) -> list[dict]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _room_of(self, node: dict) -> int:
        """Return how many jobs a node has room for."""
        if self.device == "cpu":
            return int(node["Resources"].get("CPU", 0))
        return round(node["Resources"].get("GPU", 0) / self._share_of_gpu())

    def _share_of_gpu(self) -> float:
        gpus = sum(node["Resources"].get("GPU", 0) for node in self._nodes())
        if not gpus:
            raise ValueError("--device cuda: no node of the Ray cluster has a GPU. Use --device cpu.")
        return min(1.0, gpus / self._most) if self._most else 1.0

    def _check_nodes(self) -> None:
        """Check that each node has the program and sees the run folder."""
        if self.device == "cuda":
            self._share_of_gpu()
        token = uuid4().hex
        file = self.folder.root / "work" / f"{token}.shared"
        store.write_atomically(file, token.encode())
        by_id = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        nodes = self._nodes()
        try:
            found = [
                self._ray.remote(num_cpus=0, scheduling_strategy=by_id(node["NodeID"], soft=False))(_probe).remote(
                    str(file), str(PROGRAM)
                )
                for node in nodes
            ]
            answers = self._ray.get(found, timeout=PROBE_SECONDS)
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"A node of the Ray cluster does not answer: {reason}") from error
        finally:
            file.unlink(missing_ok=True)
        for node, (read, schema) in zip(nodes, answers, strict=True):
            name = node["NodeManagerAddress"]
            if read != token:
                raise ValueError(
                    f"Node {name} does not see the run folder {self.folder.root}: name with --out a folder that "
                    "all nodes share, under the same path."
                )
            if schema != store.SCHEMA:
                raise ValueError(
                    f"Node {name} has not this version of the scorer in {PROGRAM}: put it there, with what "
                    "requirements-ray.txt lists."
                )


def _import_ray():
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ValueError("--engine ray needs Ray: pip install -r requirements-ray.txt") from error
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a worker need not find this module
    return ray


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep this program's handlers: Ray puts one of its own in the place of that for SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def _run_command(arguments: list[str], program: str) -> tuple[int, str]:
    """Run the command on the node that Ray chose; return its exit code and the last of what it said."""
    command = [sys.executable, "-m", "local_scorer", "job", *arguments, "--parent", str(os.getpid())]
    with subprocess.Popen(
        command, cwd=program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            output, _ = process.communicate()
        finally:
            process.terminate()  # where the task was cancelled; the command ends its children
    return process.returncode, output.decode(errors="replace")[-TAIL:]


def _probe(file: str, program: str) -> tuple[str | None, int | None]:
    """Say what a node reads in a file of the run folder, and which version of the scorer it has."""
    script = "from local_scorer.runs import store; print(store.SCHEMA)"
    try:
        answer = subprocess.run([sys.executable, "-c", script], cwd=program, capture_output=True, check=True)
        schema = int(answer.stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        schema = None
    try:
        return Path(file).read_text(), schema
    except OSError:
        return None, schema
