"""Run a notebook in a clean kernel, and end whatever it started. Needs no torch.

The kernel's parent is a process of its own that adopts orphans: what the notebook left behind is found there, also
where it moved to another group or session.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from kaggle_submission.tools.clock import Clock
from local_scorer.execution import keeper, sandbox

BOOK, ENDING = "notebook.ipynb", "ending.json"


def execute(content: dict, root: Path, timeout: float) -> tuple[str, str] | None:
    """Run a notebook that starts in /kaggle/working below `root`; return the kind and text of what stopped it.

    The notebook with its outputs and what its processes worked over time is left in `root`.

    Raises:
        ValueError: what runs notebooks is not installed.
    """
    missing = [name for name in ("nbformat", "nbclient", "ipykernel") if not importlib.util.find_spec(name)]
    if missing:
        raise ValueError(
            f"There is no {missing[0]} here. Install what runs notebooks: "
            "pip install -r requirements-notebooks.txt"
        )
    (root / BOOK).write_text(json.dumps(content), encoding="utf-8")
    command = [sys.executable, "-m", "kaggle_submission.tools.kernel", str(root), str(timeout)]
    parent = subprocess.Popen(command, cwd=sandbox.PACKAGES, start_new_session=True)
    try:
        parent.wait()
    finally:
        parent.terminate()  # of use where this process is interrupted
        parent.wait()
    ending = root / ENDING
    if not ending.is_file():
        return "killed", "The process that watched over the notebook was ended from outside."
    found = json.loads(ending.read_text(encoding="utf-8"))
    ending.unlink()
    return tuple(found) if found else None


def _main(root: Path, timeout: float) -> None:
    sandbox.adopt_orphans()
    sandbox.die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with Clock() as clock:
            ending = _execute_here(root, timeout)
    finally:
        keeper.end_descendants()
    clock.write(root)
    (root / ENDING).write_text(json.dumps(ending), encoding="utf-8")


def _execute_here(root: Path, timeout: float) -> tuple[str, str] | None:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    book = nbformat.from_dict(json.loads((root / BOOK).read_text(encoding="utf-8")))
    deadline = time.monotonic() + timeout
    started: list[int] = []
    client = NotebookClient(
        book,
        kernel_name="python3",
        timeout_func=lambda cell: max(1, int(deadline - time.monotonic())),
        on_cell_start=lambda cell, cell_index: started.append(cell_index),
        resources={"metadata": {"path": str(root / "kaggle" / "working")}},
        extra_arguments=["--log-level=ERROR"],
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        client.execute(env=environment)
    except CellExecutionError as error:
        message = (error.evalue or "").strip().partition("\n")[0].replace(str(root), "")
        if error.ename == "ModuleNotFoundError":
            return "package", _missing_package(message, _cell(book, started))
        return "exception", f"{_cell(book, started)} raised {error.ename}: {message}"
    except CellTimeoutError:
        text = f"{_cell(book, started)} had not ended when the {timeout:g} s of --timeout were over."
        return "time-out", text + " Do less in each run, or give it more time."
    except DeadKernelError:
        return "killed", f"{_cell(book, started)} ended the whole process: is the memory full?"
    finally:
        nbformat.write(book, root / BOOK)
    return None


def _missing_package(message: str, cell: str) -> str:
    """Say which package this machine lacks; Kaggle may have it."""
    module = message.partition("'")[2].partition("'")[0] or message
    return (
        f"{cell} needs the package {module!r}, which is missing here. Install it in this environment and rehearse "
        "again. That says nothing about the notebook, if Kaggle has the package."
    )


def _cell(book: dict, started: list[int]) -> str:
    """Name the code cell that ran last, by its number among the code cells and its first line of code."""
    index = started[-1]
    number = sum(cell["cell_type"] == "code" for cell in book["cells"][: index + 1])
    lines = [line.strip() for line in book["cells"][index]["source"].splitlines()]
    first = next((line for line in lines if line and not line.startswith("#")), "")
    return f"Code cell {number} ({first[:40]!r})"


if __name__ == "__main__":
    _main(Path(sys.argv[1]), float(sys.argv[2]))
