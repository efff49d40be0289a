"""Which files are entries, and which one a path or a name means."""

from __future__ import annotations

import difflib
from pathlib import Path

from data_prep.options import OptionError

FOLDER = Path(__file__).resolve().parents[2] / "kaggle_submission"
KINDS = (".py", ".ipynb", ".zip")
TEXTS = (".py", ".ipynb")  # those with code
USUAL = (  # of a board for which no entry is named: it takes minutes, one of all entries three times as long
    "bad_teacher",
    "bad_teacher_similarity",
    "best",
    "contrastive",
    "finetune",
    "fisher_noise",
    "gisa",
    "neggrad",
    "random_label",
    "retrain_short",
    "ssd",
)


def shipped_entries() -> list[Path]:
    """Return the entries of this repository."""
    return sorted(path for path in FOLDER.glob("*.py") if not path.name.startswith("_"))


def usual_entries() -> list[Path]:
    """Return the entries of a first board: the methods of the report, and what they are best read beside."""
    return [FOLDER / f"{name}.py" for name in USUAL]


def find_entry(text: str, kinds: tuple[str, ...] = KINDS) -> Path:
    """Return the file that is meant by a path, or by the name of an entry in kaggle_submission/.

    Raises:
        OptionError: there is no such file, or it is not an entry of these kinds.
    """
    path, named = Path(text), FOLDER / f"{text}.py"
    if path.name == text and not path.exists() and named.is_file():
        path = named
    if not path.exists():
        near = difflib.get_close_matches(path.stem, [entry.stem for entry in shipped_entries()], n=1)
        meant = f"Do you mean {near[0]}?" if near else "Give its path, or its name in kaggle_submission/."
        raise OptionError(f"There is no entry file {path}. {meant}")
    if not path.is_file() or path.suffix not in kinds:
        raise OptionError(f"{path} is not an entry: an entry is a file named *{' or *'.join(kinds)}.")
    if path.stem.startswith("__"):
        raise OptionError(f"{path} is not an entry: a file named {path.name} has another meaning in Python.")
    return path
