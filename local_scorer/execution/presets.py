"""Entries with other values in their SETTINGS: the same file otherwise, and values that are kept as a preset.

A preset is ``kaggle_submission/presets/NAME.json``: for each entry the settings that differ from its file, none
where the file's own are the best. An entry that it does not name has no other values.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_prep.options import OptionError
from local_scorer.execution.entries import FOLDER, shipped_entries
from local_scorer.runs.store import write_atomically

PRESETS = FOLDER / "presets"
SETTING = r"(?m)^({}) = (.+?)(?:  #.*)?$"


def settings_of(source: str) -> dict[str, object]:
    """Return the settings of an entry file with their values; those that are no literals are left out.

    >>> settings_of("# SETTINGS\\nLR = 1e-3  # Adam\\n\\n# METHOD\\nx = 2\\n")
    {'LR': 0.001}
    """
    block = source.partition("# SETTINGS\n")[2].partition("\n# METHOD\n")[0]
    found = {}
    for name, text in re.findall(SETTING.format("[A-Z][A-Z0-9_]*"), block):
        try:
            found[name] = ast.literal_eval(text)
        except ValueError:  # such as 1 / 3
            continue
    return found


def rewritten(source: str, values: Mapping[str, str]) -> str:
    """Return an entry file in which settings have other values, given as they stand in Python.

    >>> rewritten("LR = 1e-3  # Adam\\n", {"LR": "0.01"})
    'LR = 0.01  # in place of 1e-3\\n'

    Raises:
        ValueError: there is no such setting.
    """
    for name, value in values.items():

        def changed(line: re.Match[str], value: str = value) -> str:
            return f"{line[1]} = {value}  # in place of {line[2]}"

        source, found = re.subn(SETTING.format(re.escape(name)), changed, source)
        if found != 1:
            raise ValueError(f"no setting {name!r}")
    return source


def load(path: Path) -> dict[str, dict[str, object]]:
    """Return the settings of a preset: entry -> setting -> value."""
    return json.loads(path.read_text(encoding="utf-8"))


def save(path: Path, values: Mapping[str, Mapping[str, object]]) -> None:
    """Write a preset, one entry a line."""
    lines = (f"  {json.dumps(name)}: {json.dumps(values[name])}" for name in sorted(values))
    write_atomically(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def name_with(entry: str, preset: str) -> str:
    """Return the name that an entry has on a board with the values of a preset.

    >>> name_with("salun", "tuned")
    'salun (tuned)'
    """
    return f"{entry} ({preset})"


def without_values(entries: Sequence[Path], preset: str) -> list[str]:
    """Return the names of entries for which a preset has no values.

    Raises:
        OptionError: there is no such preset, or an entry is none of kaggle_submission/.
    """
    known = sorted(path.stem for path in PRESETS.glob("*.json"))
    if preset not in known:
        raise OptionError(f"There is no preset {preset!r}: expected {' or '.join(known)}.")
    shipped = [entry.resolve() for entry in shipped_entries()]
    own = [str(entry) for entry in entries if entry.resolve() not in shipped]
    if own:
        raise OptionError(f"--preset has values for entries of {FOLDER.name}/ alone, not for {', '.join(own)}.")
    values = load(PRESETS / f"{preset}.json")
    return [entry.stem for entry in entries if entry.stem not in values]


def applied(source: str, entry: str, preset: str) -> str:
    """Return the text of an entry with the values that a preset has for it.

    Raises:
        ValueError: the entry has other settings today than when it got them.
    """
    values = load(PRESETS / f"{preset}.json").get(entry, {})
    try:
        return rewritten(source, {setting: repr(value) for setting, value in values.items()})
    except ValueError as error:
        raise ValueError(f"{entry}.py has {error}, of which the preset {preset!r} has a value.") from error


def written(entries: Sequence[Path], preset: str, folder: Path) -> list[Path]:
    """Write entries with the values of a preset into `folder`; return their files, and the others as they are."""
    as_they_are, files = without_values(entries, preset), []
    for entry in entries:
        if entry.stem in as_they_are:
            files.append(entry)
            continue
        source = applied(entry.read_text(encoding="utf-8"), entry.stem, preset)
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"{name_with(entry.stem, preset)}.py")
        write_atomically(files[-1], source.encode())
    return files
