"""Commands of ``python -m local_scorer``. The only module here that prints."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.options import LARGEST_SEED, OptionError, check_range
from local_scorer.arguments import DEFAULT_SIZE, PACK, parser, program
from local_scorer.execution import interrupts, presets
from local_scorer.execution.entries import TEXTS, find_entry, shipped_entries, usual_entries
from local_scorer.report import board as boards
from local_scorer.report import table
from local_scorer.runs.record import Run
from local_scorer.runs.store import RunFolder

if TYPE_CHECKING:
    from local_scorer.execution.pool import Engine

DONE, PROBLEM, WRONG_USAGE, ENTRY_NOT_SCORED = 0, 1, 2, 3
DEFAULT_MODELS = 10
DEFAULT_ORIGINALS, DEFAULT_RUNS = 8, 4  # with a pack; originals rank better than runs: docs/results/intervals.md
DEFAULT_FULL = 32  # of the full set-up, with the shipped pack: originals, one run from each
RANGES = {
    "models": (1, 10_000),
    "originals": (1, 1000),
    "outputs": (2, 10_000),
    "workers": (0, 1024),
    "seed": (0, LARGEST_SEED),
}
DEFAULT_DATA = Path("data/synthetic")  # made on the first run


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; a user's mistake gets one sentence, not a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parser(HANDLERS).parse_args(arguments)
    args.command_line = "python -m local_scorer " + shlex.join(arguments)
    interrupts.install()
    try:
        _check_numbers(args)
        return args.run(args)
    except OptionError as error:
        print(f"error: {_clean(str(error))}", file=sys.stderr)
        return WRONG_USAGE
    except BrokenPipeError:  # what reads the output, such as `head`, wants no more of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PROBLEM
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {_clean(str(error))}", file=sys.stderr)
        return PROBLEM
    except KeyboardInterrupt:
        print("\nInterrupted. Finished jobs are kept: run the same command again to go on.", file=sys.stderr)
        return interrupts.INTERRUPTED


def leaderboard(args: argparse.Namespace) -> int:
    """Run entries N times each and print the leaderboard."""
    from local_scorer import run as run_room

    folder = RunFolder(args.out)
    if args.all and args.entries:
        raise OptionError("--all scores every entry of kaggle_submission: give no others with it.")
    found = shipped_entries() if args.all else usual_entries()
    entries = [find_entry(entry) for entry in args.entries] or found
    run_room.check_names(entries)
    as_published = presets.without_values(entries, args.preset) if args.preset else []
    _say_what_is_fitted(entries, args.device)
    pack = _pack(args, entries)
    n_models = _n_models(args, entries, pack) if args.models is None else args.models
    usual = n_models if args.setup == "full" else 1 if pack is None else DEFAULT_ORIGINALS
    settings = run_room.Settings(
        data=DEFAULT_DATA,
        n_models=n_models,
        setup=args.setup,
        n_originals=usual if args.originals is None else args.originals,
        reference=pack,
        recipe=args.recipe,
        width=args.width,
        rules=args.rules,
        device=args.device,
        seed=args.seed,
        sandbox=args.sandbox,
        over_limit=args.over_limit,
        outputs=args.outputs,
    )
    with _engine(args) as engine:
        data = _data_folder(args) if pack is None else _data_of_pack(args, pack)  # made when all else is in order
        settings = dataclasses.replace(settings, data=data)
        if args.preset:
            entries = presets.written(entries, args.preset, folder.root / "presets")
        board = run_room.run(settings, entries, folder, engine, args.command_line, add=args.add, again=args.again)
    code = _show(folder, board)
    if as_published:
        print(_wrapped(f"As published, without values in the preset {args.preset!r}: {', '.join(as_published)}."))
    print(f"A page with every figure: {program()} report {args.out}")
    return code


def do_job(args: argparse.Namespace) -> int:
    """Do one job of a run, all of its steps, as an engine asks for it."""
    from local_scorer.execution import command

    failure = command.do(args.file, RunFolder(args.out), args.limit, args.workers, args.parent, args.sandbox)
    if failure is not None:
        print(f"[{failure.kind}] {table.printable(failure.reason)}")
    return ENTRY_NOT_SCORED if failure else DONE


def show_report(args: argparse.Namespace) -> int:
    """Print the leaderboard of a run folder from its stored arrays, and write report.html, without torch."""
    from local_scorer.report import page  # imports matplotlib

    run = Run.open(args.folder)
    board = boards.collect(run, args.rules)
    suffix = "" if board.rules == run.record.rules else f"-{board.rules}"  # the run's own files stay as they are
    code = _show(run.folder, board, suffix)
    faces = args.thumbnails
    if faces is None and board.data.name == page.BUILT_IN:
        faces = _built_in(board.data.fingerprint)
    html, *figures = page.write_page(run, board, faces, suffix)
    _say_written(f"{html}, and its figures as {len(figures)} PNG files in {figures[0].parent}")
    return code


def make_reference(args: argparse.Namespace) -> int:
    """Train originals and retrained models and put what a scorer needs of them into one file."""
    from local_scorer import reference

    with _engine(args) as engine:
        base = reference.base_job(_data_folder(args), args.recipe, args.width, args.seed, args.device)
        made = reference.make(
            base,
            RunFolder(args.out),
            args.pack,
            engine,
            args.models,
            args.originals,
            args.command_line,
            outputs_only=args.outputs_only,
        )
    print(f"Written: {made}, {made.stat().st_size / 2**20:.1f} MiB")
    return DONE


def check_reference(args: argparse.Namespace) -> int:
    """Train a few of a pack's models at home and say whether they could be the pack's."""
    from local_scorer import reference
    from local_scorer.runs.pack import Pack

    opened = Pack(args.pack)
    with _engine(args) as engine:
        folder = RunFolder(args.out)
        findings = reference.check(opened, _data_folder(args), args.device, folder, engine, args.models)
    for finding in findings:
        print(f"{'ok  ' if finding.passed else 'FAIL'}  {finding.name}: {finding.text}")
    return DONE if all(finding.passed for finding in findings) else PROBLEM


def show_reference(args: argparse.Namespace) -> int:
    """Say what a reference pack holds and who made it, without torch."""
    from local_scorer.runs.pack import Pack

    opened = Pack(args.pack)
    for name, value in opened.facts():
        print(f"{name:11} {table.printable(value)}")
    return DONE


def validate(args: argparse.Namespace) -> int:
    """Check that an entry runs in the competition, and say what it needs to run elsewhere too."""
    from local_scorer import validate as validate_room

    path = find_entry(args.entry, TEXTS)
    _say_what_is_fitted([path], "cpu")
    checks = validate_room.validate(path)
    failed = [check for check in checks if check.decides and not check.passed]
    advice = [check for check in checks if not check.decides and not check.passed]
    lines = {True: [], False: []}
    for check in checks:
        mark = "ok  " if check.passed else "FAIL" if check.decides else "hint"
        lines[check.decides].append(f"  {mark}  {check.name}{'' if check.passed else ': ' + check.fix}")
    print("Runs in the competition:", *lines[True], sep="\n")
    if failed:
        print(f"FAIL: {args.entry} does not run in the competition yet.")
        return ENTRY_NOT_SCORED
    print("Portable, to other data, nets and loaders (advice):", *lines[False], sep="\n")
    hints = f", with {len(advice)} hint(s) for other places" if advice else ""
    print(f"PASS: {args.entry} runs in the competition{hints}.")
    return DONE


def _say_what_is_fitted(entries: list[Path], device: str) -> None:
    """Say what is changed in entries that were written for a GPU, and which loaders seem to be confused."""
    from local_scorer.execution import contract

    for path in entries:
        if path.suffix not in TEXTS:
            continue
        try:
            source = contract.read_source(path)
            _, changes = contract.fitted(source, device)
            misnamed = contract.misnamed_loaders(source)
        except (ValueError, SyntaxError):  # what is wrong with it is said later
            continue
        if changes:
            print(f"{path} is written for a GPU; to run on the CPU, {'; '.join(changes)}.", file=sys.stderr)
        if misnamed:
            print(f"warning: {path}: {misnamed}", file=sys.stderr)


def list_runs(args: argparse.Namespace) -> int:
    """List the run folders below a folder."""
    records = sorted(Path(args.folder).rglob("run.json"))
    if not records:
        print(f"No runs below {args.folder}. Make one with 'python -m local_scorer leaderboard'.")
    for path in records:
        try:
            run = Run.open(path.parent)
        except ValueError as error:
            print(error)
            continue
        names, data = (table.printable(text) for text in (", ".join(run.names), run.record.data.name))
        done = sum(run.folder.result_path(key).is_file() for key in run.keys)
        line = f"{path.parent}: {data}, N={run.record.n_models}, {done}/{len(run.keys)} jobs: {names}"
        print(textwrap.fill(line, table.TABLE_WIDTH, subsequent_indent="    "))
    return DONE


def _show(folder: RunFolder, board: boards.Leaderboard, suffix: str = "") -> int:
    from local_scorer.execution import contract

    paths = boards.write(folder, board, suffix)
    print(table.table(board))
    for row in board.rows:
        if row.details:
            print(f"\n{_wrapped(f'Last lines of {row.entry}:')}\n{_wrapped(row.details)}")
        if row.status == "failed" and contract.is_about_sizes(row.reason):
            sizes = "The competition had ten outputs and width 64: --outputs 10 --width 64."
            print(f"\n{_wrapped(f'{row.entry} expects other sizes than those of this run. {sizes}')}")
    _say_written(", ".join(map(str, paths)))
    return DONE if board.all_scored else ENTRY_NOT_SCORED


def _clean(text: str) -> str:
    return "\n".join(map(table.printable, text.expandtabs().splitlines()))


def _wrapped(text: str) -> str:
    """Return text that can be printed, in lines that are no wider than the table."""
    lines = _clean(text).splitlines()
    return "\n".join(textwrap.fill(line, table.TABLE_WIDTH, subsequent_indent="    ") for line in lines)


def _say_written(paths: str) -> None:
    """Name the files that were written; a path stays whole, so that it can be copied."""
    print()
    print(textwrap.fill(f"Written: {paths}", table.TABLE_WIDTH, break_long_words=False, break_on_hyphens=False))


def _engine(args: argparse.Namespace) -> contextlib.AbstractContextManager[Engine]:
    mode = getattr(args, "sandbox", "auto")
    if args.engine == "ray":
        from local_scorer.execution.ray import RayEngine

        return RayEngine(RunFolder(args.out), args.device, args.workers, args.address, mode)
    if args.address is not None:
        raise OptionError("--address is of a Ray cluster: give --engine ray with it.")
    from local_scorer.execution.local import LocalEngine

    return LocalEngine(RunFolder(args.out), args.device, args.workers, sandbox=mode)


def _check_numbers(args: argparse.Namespace) -> None:
    """Refuse absurd numbers before anything starts.

    Raises:
        OptionError: one is out of its range.
    """
    for name, (low, high) in RANGES.items():
        value = getattr(args, name, None)
        if value is not None:
            check_range(f"--{name}", value, low, high)
    limit = getattr(args, "limit", None)
    if limit is not None and not limit > 0:  # NaN is not
        raise OptionError(f"--limit must be more than 0 seconds, found {limit}.")


def _data_folder(args: argparse.Namespace) -> Path:
    if args.data is not None:
        if args.size is not None:
            raise OptionError("--size is of the built-in set; the pictures in --data have a size of their own.")
        return Path(args.data)
    from data_prep.sources import synthetic

    size = DEFAULT_SIZE if args.size is None else args.size
    synthetic.check_size(size)
    folder = DEFAULT_DATA if size == DEFAULT_SIZE else DEFAULT_DATA.with_name(f"synthetic-{size}")
    if not (folder / "manifest.json").is_file():
        print(f"Making the built-in data set in {folder} ...", file=sys.stderr)
        synthetic.prepare(folder, size=size)
    return folder


def _built_in(fingerprint: str) -> Path | None:
    """Return the folder that holds the built-in set of a run, in whatever size and of whatever seed."""
    import data_prep.dataset

    for folder in sorted(DEFAULT_DATA.parent.glob(f"{DEFAULT_DATA.name}*")):
        try:
            found = data_prep.dataset.load(folder).fingerprint
        except (ValueError, OSError):  # half made, or of another version
            continue
        if found == fingerprint:
            return folder
    return None


def _pack(args: argparse.Namespace, entries: list[Path]) -> Path | None:
    """Return the reference pack to score against: the one asked for, or the shipped one where it fits."""
    if args.reference is not None or args.fresh:
        if args.reference is not None and args.fresh:
            raise ValueError("--reference scores against a pack and --fresh trains everything here: give one.")
        return args.reference
    asked = (args.data, args.size, args.recipe, args.width, args.seed, args.device)
    fits = asked == (None, None, "quick", 16, 0, "cpu") and args.outputs is None
    zips = any(entry.suffix == ".zip" for entry in entries)
    return PACK if fits and not zips and PACK.is_file() else None


def _data_of_pack(args: argparse.Namespace, pack: Path) -> Path:
    from local_scorer import reference
    from local_scorer.runs.pack import Pack

    folder, sentence = reference.data_of(Pack(pack), _data_folder(args))
    if sentence:
        print(sentence, file=sys.stderr)
    return folder


def _n_models(args: argparse.Namespace, entries: list[Path], pack: Path | None) -> int:
    """Return as many as the first submission among the entries holds, and a default without one."""
    from local_scorer.execution import submission

    if pack is not None:
        return DEFAULT_FULL if args.setup == "full" else DEFAULT_RUNS
    zips = [entry for entry in entries if entry.suffix == ".zip"]
    return submission.open_submission(zips[0]).n_models if zips else DEFAULT_MODELS


HANDLERS = {
    "leaderboard": leaderboard,  # and score
    "validate": validate,
    "report": show_report,
    "job": do_job,
    "ls": list_runs,
    "reference make": make_reference,
    "reference check": check_reference,
    "reference info": show_reference,
}
