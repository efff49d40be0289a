"""The arguments of ``python -m local_scorer``: what each command takes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from local_scorer.execution import sandbox
from local_scorer.execution.entries import USUAL
from local_scorer.report.board import RULES
from local_scorer.runs.record import SETUPS

DEFAULT_OUT = Path("runs/default")
DEFAULT_SIZE = 32
CONSOLE_COMMAND = "unlearning-scorer"  # of an installed package
PACK = Path(__file__).with_name("packs") / "synthetic-quick.npz"  # the built-in set, recipe quick
EXIT_CODES = """exit codes: 0 every entry scored; 1 the run stopped (one sentence says why); 2 wrong usage;
3 an entry failed or was rejected; 130 interrupted (run the same command again to go on)."""

Handler = Callable[[argparse.Namespace], int]


def program() -> str:
    """Return how the user calls this program."""
    name = Path(sys.argv[0]).name
    return name if name == CONSOLE_COMMAND else "python -m local_scorer"


def parser(handlers: Mapping[str, Handler]) -> argparse.ArgumentParser:
    """Return the parser of all commands.

    Args:
        handlers: command -> the function that carries it out and returns the exit code; the first line of its
            docstring is the command's help.
    """
    root = argparse.ArgumentParser(
        prog=program(),
        description="Score machine-unlearning entries at home.",
        epilog=f"example: {program()} leaderboard kaggle_submission/finetune.py --models 10",
    )
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    for name, example in (
        ("leaderboard", "leaderboard --models 10 --out runs/first"),
        ("score", "score submission.zip --data data/mufac32 --width 64"),
    ):
        command = _command(commands, name, handlers["leaderboard"], f"{example}\n\n{EXIT_CODES}")
        if name == "score":
            help_text = "an entry file, a notebook with one, a name in kaggle_submission/, or a submission.zip"
            command.add_argument("entries", metavar="ENTRY", nargs=1, help=help_text)
            command.set_defaults(all=False)
        else:
            command.add_argument(
                "entries", metavar="ENTRY", nargs="*", help=f"entry files (default: {len(USUAL)} of those shipped)"
            )
            command.add_argument("--all", action="store_true", help="every entry in kaggle_submission/")
        _add_run_arguments(command)
        command.set_defaults(add=name == "score")  # to the board of the run folder
    command = _command(commands, "validate", handlers["validate"], "validate my_entry.py")
    help_text = "an entry file, a notebook with one, or a name in kaggle_submission/; nets have ten outputs"
    command.add_argument("entry", metavar="ENTRY", help=help_text)
    command = _command(commands, "report", handlers["report"], "report runs/default")
    command.add_argument("folder", metavar="DIR", help="the --out folder of a run")
    command.add_argument("--rules", choices=RULES, help="default: those of the run")
    faces = "show the hardest pictures of this prepared dataset; never publish a page with real people's faces"
    command.add_argument("--thumbnails", type=Path, metavar="DATA", help=faces)
    _add_reference_commands(commands, handlers)
    command = _command(commands, "job", handlers["job"], "job JOB.json --out runs/shared")
    command.add_argument("file", metavar="FILE", type=Path, help="the job, as JSON")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run folder")
    command.add_argument("--limit", type=float, metavar="S", help="seconds inside unlearning()")
    command.add_argument("--workers", type=int, default=0, metavar="W", help="jobs that share this machine")
    command.add_argument("--parent", type=int, metavar="PID", help="end when this process has ended")
    command.add_argument("--sandbox", choices=sandbox.MODES, default="auto", help="as of leaderboard")
    command = _command(commands, "ls", handlers["ls"], "ls runs")
    command.add_argument("folder", metavar="DIR", nargs="?", default="runs")
    return root


def _add_reference_commands(commands, handlers: Mapping[str, Handler]) -> None:
    command = commands.add_parser("reference", help="Make, check or describe a pack of reference models.")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    make = _command(
        actions,
        "make",
        handlers["reference make"],
        "reference make --data data/mufac32 --recipe report --models 64 --outputs-only --pack mufac32.npz",
    )
    check = _command(actions, "check", handlers["reference check"], "reference check --pack FILE")
    info = _command(actions, "info", handlers["reference info"], "reference info --pack FILE")
    for action in (make, check, info):
        action.add_argument("--pack", type=Path, required=action is make, default=PACK, metavar="FILE")
    for action in (make, check):
        add = action.add_argument
        add("--data", metavar="DIR", help="a prepared dataset (default: the built-in set)")
        add("--size", type=int, help=argparse.SUPPRESS)
        _add_engine_arguments(add)
        add("--out", type=Path, default=Path("runs/reference"), metavar="DIR", help="run folder of the trainings")
    make.add_argument("--models", type=int, default=512, metavar="N", help="retrained models, and as many again")
    make.add_argument("--originals", type=int, default=8, metavar="K", help="original models")
    make.add_argument("--recipe", default="quick", help="how models are trained")
    make.add_argument("--width", type=int, default=16, help="channels of the ResNet-18's stem")
    make.add_argument("--seed", type=int, default=0, help="all randomness follows from it")
    make.add_argument("--outputs-only", action="store_true", help="leave out weights and pictures")
    check.add_argument("--models", type=int, default=2, metavar="K", help="trainings of each kind (default: 2)")


def _command(commands, name: str, handler: Handler, example: str) -> argparse.ArgumentParser:
    summary = handler.__doc__.splitlines()[0] if name != "score" else "Score one entry and add it to a board."
    command = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example: {program()} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=handler)
    return command


def _add_engine_arguments(add: Callable[..., object]) -> None:
    add("--workers", type=int, default=0, metavar="W", help="jobs at a time (default: one per core or GPU)")
    add("--device", default="cpu", help="cpu (default) or cuda")
    add("--engine", choices=("local", "ray"), default="local", help="where jobs run: here, or on a Ray cluster")
    add("--address", metavar="A", help="of the Ray cluster (default: Ray is started on this machine)")


def _add_run_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", metavar="DIR", help="a prepared dataset (default: the built-in set, made when missing)")
    models = "runs from each original (competition: 512; default: 4 with a pack, else 10; of a zip: all)"
    add("--models", type=int, metavar="N", help=models)
    add("--originals", type=int, metavar="K", help="models to unlearn from (default: 8 with a pack, else 1)")
    setup = "competition (default): N runs from each original; full: one from each of N originals, trained here"
    add("--setup", choices=SETUPS, default=SETUPS[0], help=setup)
    add("--reference", type=Path, metavar="PACK", help="take originals and retrained models from this pack")
    add("--fresh", action="store_true", help="train everything here, also where the shipped pack would do")
    add("--recipe", default="quick", help="how models are trained: competition, report or quick (default)")
    add("--width", type=int, default=16, help="channels of the ResNet-18's stem: 16 (default), 32 or 64")
    add("--outputs", type=int, metavar="N", help="outputs of the nets (competition: 10; default: one a class)")
    add("--size", type=int, help=f"pixels of the built-in set (default: {DEFAULT_SIZE}); not with --data")
    add("--rules", choices=RULES, default="official", help="which metric (default: official)")
    _add_engine_arguments(add)
    add("--seed", type=int, default=0, help="all randomness follows from it (default: 0)")
    add("--preset", metavar="NAME", help="run shipped entries with the values of a preset: tuned")
    isolate = "keep entries from files and processes: auto, as far as this machine can (default), required or off"
    add("--sandbox", choices=sandbox.MODES, default="auto", help=isolate)
    add("--again", action="store_true", help="measure the entries anew, also where results are stored")
    study = "for study: stop entries at twice and not at once the time of retraining; they stay rejected"
    add("--over-limit", action="store_true", help=study)
    add("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help=f"run folder (default: {DEFAULT_OUT})")
