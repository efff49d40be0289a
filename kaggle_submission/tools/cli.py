"""Commands of ``python -m kaggle_submission``. The only module here that prints."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from data_prep.options import OptionError, check_range
from kaggle_submission.tools import kaggle_tree, notebook, sync
from kaggle_submission.tools.counting import RUNS
from local_scorer.execution import presets
from local_scorer.execution.entries import TEXTS, find_entry

DONE, PROBLEM, WRONG_USAGE, NOT_PASSED, INTERRUPTED = 0, 1, 2, 3, 130
MOST_PICTURES = 1_000_000
DEFAULT_OUT = Path("runs/kaggle")
ENTRY_HELP = "an entry file (.py), a notebook with one (.ipynb), or a name in kaggle_submission/"


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; a user's mistake gets one sentence, not a traceback."""
    args = _parser().parse_args(arguments)
    try:
        return args.run(args)
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USAGE
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return PROBLEM
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED


def write_notebook(args: argparse.Namespace) -> int:
    """Write a ready Kaggle notebook around an entry file, and the metadata to push it."""
    entry = find_entry(args.entry, TEXTS)
    out = args.out or DEFAULT_OUT / "-".join(filter(None, (entry.stem, args.preset)))
    if args.preset:
        if presets.without_values([entry], args.preset):
            print(f"The preset {args.preset!r} has no values for {entry.stem}: as published.")
        (entry,) = presets.written([entry], args.preset, out)
    notebook_path, metadata_path = notebook.write(entry, out, args.user)
    print(f"Wrote {notebook_path} and {metadata_path}.")
    print(f"Try it here:     python -m kaggle_submission rehearse {notebook_path} --data PREPARED")
    if args.user == notebook.UNKNOWN_USER:
        print(f"Before a push, put your Kaggle name for {args.user} in {metadata_path.name} (or use --user).")
    print(f"Send to Kaggle:  kaggle kernels push -p {out}")
    return DONE


def rehearse(args: argparse.Namespace) -> int:
    """Run a notebook at home as Kaggle would, with few runs, and check its submission.zip."""
    if not 0 < args.timeout < math.inf:  # NaN is not
        raise OptionError(f"--timeout must be a number of seconds above 0, found {args.timeout}.")
    check_range("--runs", args.runs, 2, RUNS)  # one shows no spread
    check_range("--limit-images", args.limit_images, 8, MOST_PICTURES)
    path = find_entry(args.notebook, TEXTS)
    from kaggle_submission.tools import rehearse as rehearsing  # imports torch

    rehearsal = rehearsing.rehearse(
        path, args.data, args.runs, args.limit_images, args.timeout, keep=args.keep
    )
    for change in rehearsal.changes:
        print(f"changed for the rehearsal: {change}")
    for finding in rehearsal.findings:
        print(f"{finding.level:5} {finding.name:9} {finding.text}")
    failed = sum(finding.level == "FAIL" for finding in rehearsal.findings)
    doubts = sum(finding.level == "warn" for finding in rehearsal.findings)
    if failed:
        print(f"FAIL: {path} is not ready. Mend what is marked FAIL ({failed}), then rehearse again.")
        return NOT_PASSED
    print(f"PASS: {path}" + (f", with {doubts} warning(s) to read." if doubts else "."))
    return DONE


def sync_blocks(args: argparse.Namespace) -> int:
    """Write the text that entries share anew from kaggle_submission/shared/."""
    for path in sync.sync():
        print(f"wrote {path.name}")
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kaggle_submission", description="From an entry file to a valid Kaggle submission."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = _command(
        commands, "notebook", write_notebook, "python -m kaggle_submission notebook kaggle_submission/finetune.py"
    )
    command.add_argument("entry", metavar="ENTRY", help=ENTRY_HELP)
    command.add_argument("--out", type=Path, metavar="DIR", help=f"folder (default: {DEFAULT_OUT}/ENTRY)")
    command.add_argument("--preset", metavar="NAME", help="with the values of a preset: tuned")
    command.add_argument("--user", default=notebook.UNKNOWN_USER, help="your Kaggle name, for the metadata")
    command = _command(
        commands,
        "rehearse",
        rehearse,
        "python -m kaggle_submission rehearse kaggle_submission/finetune.py --data data/synthetic\n\n"
        "exit codes: 0 PASS; 1 the rehearsal could not take place; 2 wrong usage; 3 FAIL; 130 interrupted.",
    )
    add = command.add_argument
    add("notebook", metavar="NOTEBOOK", help=f"a notebook of the competition, or {ENTRY_HELP}")
    add("--data", type=Path, required=True, metavar="PREPARED", help="a prepared data set")
    add("--runs", type=int, default=4, metavar="N", help="runs instead of the 512 (default: 4)")
    add("--limit-images", type=int, default=256, metavar="N", help="pictures a split (default: 256)")
    timeout = "for the notebook from top to bottom, each of the three times that it runs (default: 1800)"
    add("--timeout", type=float, default=1800, metavar="SECONDS", help=timeout)
    add("--keep", type=Path, metavar="DIR", help="keep /kaggle as it was at the end, and the notebook as it ran")
    _command(commands, "sync", sync_blocks, "python -m kaggle_submission sync")
    summary, _, example = kaggle_tree.__doc__.partition("\n\n")
    command = commands.add_parser(
        "kaggle-tree",
        help=summary,
        description=summary,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kaggle_tree.add_arguments(command)
    command.set_defaults(run=kaggle_tree.run)
    return parser


def _command(commands, name, function, example: str) -> argparse.ArgumentParser:
    summary = function.__doc__.splitlines()[0]
    command = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=function)
    return command
