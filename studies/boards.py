"""Keep what a leaderboard measured: results/BOARD/ENTRY.json for every entry, and board.json for what they share.

    python -m studies.boards runs/builtin64 --board builtin64
    python -m studies.boards runs/default --board builtin --only my_entry

The run folder holds leaderboard.json; where `report --rules notebook` was run as well, those scores are kept
beside the official ones. Numbers of other entries on the board stay as they are, and its ties leave out an entry
whose score is another one now.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from local_scorer.execution import presets
from local_scorer.execution.contract import source_hash
from local_scorer.runs.store import write_atomically
from studies import frame
from studies.frame import RESULTS, ROOT, Results

BY_RULES = ("score", "score_low", "score_high", "share_of_ceiling", "forgetting_quality")
BY_ENTRY = (
    "retain_ratio", "test_ratio", "time_ratio", "retain_accuracy", "forget_accuracy", "test_accuracy",
    "seconds", "time_low", "time_high", "clock", "cpu_time_ratio", "wall_time_ratio",
)  # fmt: skip
CHANGED = " †"  # behind an entry whose code is another one than that which was measured
REFERENCES = {"retrained": "ceiling", "no unlearning": "floor"}


def main() -> None:
    """Write the files of one board."""
    summary, _, details = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m studies.boards",
        description=summary,
        epilog=details.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="the --out folder of a leaderboard")
    parser.add_argument("--board", required=True, help="name of the folder below results/")
    parser.add_argument("--only", nargs="+", metavar="ENTRY", help="keep these entries alone (default: all)")
    args = parser.parse_args()
    try:
        keep(args.run, RESULTS / args.board, args.only)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{args.run} holds no leaderboard that can be kept ({error!r}).") from error


def keep(run: Path, folder: Path, only: list[str] | None = None) -> None:
    """Write the rows of a run's leaderboard below `folder`.

    Raises:
        OSError, ValueError, KeyError: the run has no leaderboard, or it cannot be read.
    """
    official = read(run / "leaderboard.json")
    notebook = run / "leaderboard-notebook.json"
    boards = {"official": official} | ({"notebook": read(notebook)} if notebook.is_file() else {})
    hashes = dict.fromkeys(REFERENCES) | {e["name"]: e["hash"] for e in read(run / "run.json")["entries"]}
    made, moved = _provenance(official), set()
    for row in official["rows"]:
        if only and row["entry"] not in only:
            continue
        rules = {
            name: {part: found[part] for part in BY_RULES}
            for name, board in boards.items()
            for found in board["rows"]
            if found["entry"] == row["entry"]
        }
        claim = {"entry": row["entry"], "board": folder.name, "source_hash": hashes[row["entry"]]}
        claim |= {"n_models": row["n_models"], "n_originals": official["n_originals"]}
        claim |= {"status": row["status"], **made, "rules": rules}
        claim |= {part: row[part] for part in BY_ENTRY}
        if row["forecast"]:
            claim["forecast"] = {p: row["forecast"][p] for p in ("n_models", "score", "score_low", "score_high")}
        path = folder / f"{row['entry'].replace(' ', '_')}.json"
        if path.is_file() and read(path)["rules"]["official"]["score"] != row["score"]:
            moved.add(row["entry"])
        _write(path, claim)
    if only and (folder / "board.json").is_file():
        kept = read(folder / "board.json")
        _write(folder / "board.json", kept | {"ties": _without(kept["ties"], moved)})
        return
    data, settings = official["data"], official["provenance"]["settings"]
    about = {"board": folder.name, "data": {"name": data["name"]}}
    about["data"] |= {split: data["counts"][split] for split in ("forget", "retain")}
    about["settings"] = {name: settings[name] for name in ("size", "width", "device")}
    about["settings"]["recipe"] = settings["recipe"]["name"]
    about |= {name: official[name] for name in ("n_models", "n_originals", "n_retrained", "to_forget", "ties")}
    _write(folder / "board.json", about | made)


def _without(ties: list[dict[str, Any]], moved: set[str]) -> list[dict[str, Any]]:
    """Return the ties that stand, the first entry of each being what the others were held against."""
    standing = [tie for tie in ties if tie["entries"][0] not in moved]
    left = [tie | {"entries": [name for name in tie["entries"] if name not in moved]} for tie in standing]
    return [tie for tie in left if len(tie["entries"]) > 1]


def claims(folder: Path) -> list[dict[str, Any]]:
    """Return what is kept of the entries of one board, references included."""
    return [read(path) for path in sorted(folder.glob("*.json")) if path.name != "board.json"]


def about(folder: Path) -> dict[str, Any]:
    """Return what the entries of a board share."""
    return read(folder / "board.json")


def has_changed(claim: dict[str, Any]) -> bool:
    """Return whether the entry's code is another one than that which was measured."""
    name, _, preset = claim["entry"].rstrip(")").partition(" (")  # as `presets.name_with` has it
    path = ROOT / "kaggle_submission" / f"{name}.py"
    if not path.is_file():
        return False
    source = path.read_text(encoding="utf-8")
    return source_hash(presets.applied(source, name, preset) if preset else source) != claim["source_hash"]


def table(folder: Path, rules: str = "official") -> Results:
    """Return a board as a table, best score first, its ties and conditions as notes."""
    board, rows = about(folder), []
    columns = ["entry", *BY_RULES, "retain_ratio", "test_ratio", "time_ratio", "status"]
    for claim in claims(folder):
        if rules in claim["rules"]:
            values = claim["rules"][rules] | claim
            name = claim["entry"] + (CHANGED if has_changed(claim) else "")
            status = REFERENCES.get(claim["entry"], claim["status"])
            rows.append([name, *(values[part] for part in columns[1:-1]), status])
    rows.sort(key=lambda row: -(row[1] or 0.0))
    data, settings = board["data"], board["settings"]
    notes = [
        f"{data['name']}: {data['forget']} pictures to forget, {data['retain']:,} to retain; "
        f"{settings['size']} px, ResNet-18 of width {settings['width']}, recipe {settings['recipe']}; "
        f"{rules} rules. To forget: {board['to_forget']:.2f} standard deviations."
    ]
    if board.get("n_originals", 1) > 1:
        notes.append(
            f"Each entry ran {board['n_models']} times from each of {board['n_originals']} originals, against "
            f"{board['n_retrained']} retrained models; intervals are those of the mean over originals."
        )
    if rules == "official":
        ties = [tie["entries"] for tie in board["ties"]]
        notes += [f"Tie: {first} cannot be told from {', '.join(others)}." for first, *others in ties]
    if any("clock" not in claim for claim in claims(folder)):
        notes.append("Times are means in wall-clock seconds, as they were counted then; today CPU seconds count.")
    if any("†" in row[0] for row in rows):
        notes.append("† The entry's code has changed since.")
    for claim in claims(folder):
        if any(claim[part] != board[part] for part in ("machine", "date", "command")):
            notes.append(f"{claim['entry']}: {claim['machine']}, {claim['date']}, `{claim['command']}`.")
    made = [board.get(name) for name in ("command", "machine", "date", "versions", "n_models")]
    return Results(*made, columns=columns, rows=rows, notes=notes)


def _provenance(board: dict[str, Any]) -> dict[str, Any]:
    made, here = board["provenance"], board["provenance"]["environment"]
    versions = {"python": here["python"]}
    versions |= {name: version for name, version in here["packages"].items() if version}
    return {
        "command": made["command"],
        "machine": f"{here['cores']} cores of {here['processor']}",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": versions,
    }


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, values: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    frame.exit_with(main)
