"""`sync` writes the text that entries share, from one source, and refuses marks that it does not understand."""

import pytest

from kaggle_submission.tools import sync
from kaggle_submission.tools.cli import main

SOURCE = "import torch\n\n# SHARED: twice\ndef twice(x):\n    return 2 * x\n# END: twice\n"
OLD = "before\n# SHARED: twice\nan older text\n# END: twice\nafter\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "__init__.py").touch()
    (tmp_path / "shared" / "twice.py").write_text(SOURCE)
    (tmp_path / "old.py").write_text(OLD)
    (tmp_path / "without.py").write_text("nothing shared\n")
    return tmp_path


def test_a_block_is_replaced_by_its_source_and_nothing_else_changes(folder):
    assert sync.sync(folder) == [folder / "old.py"]
    block = "# SHARED: twice\ndef twice(x):\n    return 2 * x\n# END: twice\n"
    assert (folder / "old.py").read_text() == f"before\n{block}after\n"
    assert (folder / "without.py").read_text() == "nothing shared\n"
    assert sync.sync(folder) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# SHARED: thrice\n# END: thrice\n", r"^bad\.py: shared/ has no block 'thrice'; there are twice\.$"),
        ("# SHARED: twice\n", r"^bad\.py: every '# SHARED: NAME' needs its '# END: NAME', before the next one"),
        ("# END: twice\n", r"^bad\.py: every '# SHARED: NAME' needs"),
    ],
)
def test_marks_without_a_partner_or_source_are_refused(folder, text, sentence):
    (folder / "bad.py").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        sync.sync(folder)
    assert (folder / "old.py").read_text() == OLD


def test_a_source_holds_the_block_of_its_name(folder):
    (folder / "shared" / "thrice.py").write_text(SOURCE)
    with pytest.raises(ValueError, match=r"thrice\.py must hold one block, from '# SHARED: thrice' to"):
        sync.sync(folder)


def test_command(monkeypatch, folder, capsys):
    monkeypatch.setattr(sync.sync, "__defaults__", (folder,))
    assert main(["sync"]) == 0
    assert capsys.readouterr().out == "wrote old.py\n"
