"""Write the text that entries share: a block between its two marks, the same in every entry that has it.

    # SHARED: plumbing
    ...
    # END: plumbing

Its source is the same block in kaggle_submission/shared/plumbing.py.
"""

from __future__ import annotations

import re
from pathlib import Path

ENTRIES = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^# SHARED: (\w+)\n.*?^# END: \1\n", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"^# (?:SHARED|END): .*$", re.MULTILINE)


def sync(folder: Path = ENTRIES) -> list[Path]:
    """Write the shared blocks of every entry in `folder` anew; return the files that changed.

    Raises:
        ValueError: a block has no source, or a mark has no partner. No file is changed then.
    """
    blocks = read_blocks(folder / "shared")
    before = {path: path.read_text(encoding="utf-8") for path in entry_files(folder)}
    after = {path: with_blocks(text, blocks, path.name) for path, text in before.items()}
    changed = [path for path in before if after[path] != before[path]]
    for path in changed:
        path.write_text(after[path], encoding="utf-8")
    return changed


def entry_files(folder: Path = ENTRIES) -> list[Path]:
    """Return the entries of a folder, the template among them."""
    return sorted(path for path in folder.glob("*.py") if not path.name.startswith("__"))


def read_blocks(folder: Path) -> dict[str, str]:
    """Return each shared block by its name, from the file of that name.

    Raises:
        ValueError: a file does not hold the block that it is named after, and no other.
    """
    blocks = {}
    for path in sorted(folder.glob("[!_]*.py")):
        found = list(BLOCK.finditer(path.read_text(encoding="utf-8")))
        if [match[1] for match in found] != [path.stem]:
            raise ValueError(f"{path} must hold one block, from '# SHARED: {path.stem}' to '# END: {path.stem}'.")
        blocks[path.stem] = found[0][0]
    return blocks


def with_blocks(text: str, blocks: dict[str, str], name: str) -> str:
    """Return the text of an entry with each shared block replaced by its source.

    Raises:
        ValueError: see `sync`.
    """
    found = list(BLOCK.finditer(text))
    if len(MARK.findall(text)) != 2 * len(found):
        raise ValueError(f"{name}: every '# SHARED: NAME' needs its '# END: NAME', before the next one begins.")
    unknown = sorted({match[1] for match in found} - blocks.keys())
    if unknown:
        raise ValueError(f"{name}: shared/ has no block {unknown[0]!r}; there are {', '.join(blocks)}.")
    return BLOCK.sub(lambda match: blocks[match[1]], text)
