"""Write what a run measured into the docstrings of the entries: score with interval, N, data, time, command.

    python -m studies.claims --run runs/builtin64 --machine "one core of an Intel Xeon" --date 2026-11-23

The run's leaderboard.csv is kept as docs/results/builtin64.csv, and a test holds the claims against it.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import textwrap
from pathlib import Path

from local_scorer.report import board as report
from local_scorer.runs.store import RunFolder, write_atomically

ROOT = Path(__file__).resolve().parent.parent
ENTRIES = ROOT / "kaggle_submission"
KEPT = ROOT / "docs" / "results" / "builtin64.csv"
COMMAND = "python -m local_scorer leaderboard --models 64"
WIDTH = 110


def main() -> int:
    """Keep the table and write a claim into every entry that it has."""
    parser = argparse.ArgumentParser(prog="python -m studies.claims", description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="the --out folder of a leaderboard")
    parser.add_argument("--machine", required=True)
    parser.add_argument("--date", required=True)
    args = parser.parse_args()
    folder = RunFolder(args.run)
    try:
        text = report.to_csv(report.collect(folder, report.load_record(folder), "official"))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_atomically(KEPT, text.encode())
    for row in csv.DictReader(text.splitlines()):
        path = ENTRIES / f"{row['entry']}.py"
        if path.is_file():
            words = f"{claim(row)}; {args.machine}; {args.date}; {COMMAND}"
            write_atomically(path, with_claim(path.read_text(encoding="utf-8"), words).encode())
    return 0


def claim(row: dict[str, str]) -> str:
    """Return the measured part of a claim, from a row of leaderboard.csv."""
    if row["status"] != "scored":
        raise ValueError(f"{row['entry']} has no score to claim: {row['status']}. {row['reason']}")
    score, low, high, time = (float(row[name]) for name in ("score", "score_low", "score_high", "time_ratio"))
    return (
        f"Claim: score {score:.4f} ({low:.4f} to {high:.4f}), N={row['n_models']}, built-in set, official rules; "
        f"{time:.1%} of the time of retraining"
    )


def with_claim(source: str, words: str) -> str:
    """Return an entry's text with these words as the last paragraph of its docstring, in place of an older claim.

    >>> print(with_claim('\"\"\"Method.\\n\\nSource: me.\\n\"\"\"\\nx = 1', "Claim: 1"))
    \"\"\"Method.
    <BLANKLINE>
    Source: me.
    <BLANKLINE>
    Claim: 1
    \"\"\"
    x = 1
    """
    opening, docstring, rest = source.split('"""', 2)
    docstring = re.sub(r"\n\nClaim: .*", "\n", docstring, flags=re.DOTALL)
    paragraph = textwrap.fill(words, WIDTH, break_on_hyphens=False)
    return f'{opening}"""{docstring.rstrip()}\n\n{paragraph}\n"""{rest}'


if __name__ == "__main__":
    sys.exit(main())
