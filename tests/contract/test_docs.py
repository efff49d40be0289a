"""docs/commands.md names every command, and every study."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
HELPERS = {"faults", "frame", "simulated"}  # modules of studies/ that are no commands


@pytest.mark.parametrize("package", ["data_prep", "kaggle_submission", "local_scorer"])
def test_every_command_is_named(package):
    wide = {**os.environ, "COLUMNS": "200"}
    arguments = [sys.executable, "-m", package, "--help"]
    text = subprocess.run(arguments, cwd=ROOT, env=wide, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^    ([a-z][a-z0-9-]*) ", text, flags=re.MULTILINE)
    assert len(found) > 2
    missing = [name for name in found if f"`python -m {package} {name}" not in COMMANDS]
    assert not missing


def test_every_study_is_named():
    studies = {path.stem for path in (ROOT / "studies").glob("*.py")} - HELPERS
    assert not [name for name in studies if f"studies.{name}" not in COMMANDS and f"`{name}`" not in COMMANDS]
