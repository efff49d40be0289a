"""The command `report`: which files it writes, which pictures it finds, and what reaches the terminal."""

import re
import shutil
from dataclasses import replace

from data_prep import dataset
from local_scorer import cli
from tests.helpers.pages import changed, parse, write_run


def test_other_rules_leave_the_files_of_the_run_s_own_alone(tmp_path, capsys):
    folder = write_run(tmp_path / "run", 3, {"only": (0.5, 1, 1.0)}, n_forget=4).folder

    def files():
        found = [path for path in folder.root.rglob("*") if path.suffix in (".html", ".csv", ".png")]
        found += folder.root.glob("leaderboard*.json")
        return {str(path.relative_to(folder.root)): path.read_bytes() for path in found}

    assert cli.main(["report", str(folder.root)]) == cli.ENTRY_NOT_SCORED
    own = files()
    assert "figures/only-epsilon.png" in own
    assert cli.main(["report", str(folder.root), "--rules", "notebook"]) == cli.ENTRY_NOT_SCORED
    both = files()
    assert own.items() <= both.items()
    assert {"report-notebook.html", "leaderboard-notebook.csv", "leaderboard-notebook.json",
            "figures-notebook/leaderboard.png"} <= both.keys()  # fmt: skip
    assert "figures-notebook" in capsys.readouterr().out
    assert b"leaderboard-notebook.csv" in both["report-notebook.html"]
    assert cli.main(["report", str(folder.root), "--rules", "official"]) == cli.ENTRY_NOT_SCORED
    assert files() == both


def test_report_cannot_steer_a_terminal(tmp_path, capsys):
    folder = write_run(tmp_path / "run", 3, {"only\x1b[2J\u202e": (0.5, 1, 1.0)}, n_forget=4).folder
    cli.main(["report", str(folder.root)])
    cli.main(["ls", str(tmp_path)])
    out = capsys.readouterr().out
    assert "only�[2J�" in out
    assert "Traceback\n  <img" in out
    assert "�[31mKeyError" in out
    assert not re.search("[\x1b\u202e]", out)
    assert not re.search("[\x1b\u202e]", (folder.root / "report.html").read_text(encoding="utf-8"))


def test_the_built_in_set_is_found_by_its_content(tmp_path, tiny_data, monkeypatch):
    (tmp_path / "synthetic").mkdir()  # half made
    shutil.copytree(tiny_data, tmp_path / "synthetic-48")
    monkeypatch.setattr(cli, "DEFAULT_DATA", tmp_path / "synthetic")
    data = dataset.load(tiny_data)
    run = write_run(tmp_path / "run", 3, {}, data.fingerprint, len(data.rows("forget")))
    for name, fingerprint, n_pictures in (
        ("synthetic", data.fingerprint, 12), ("synthetic", "another", 0), ("mine", data.fingerprint, 0),
    ):  # fmt: skip
        changed(run, data=replace(run.record.data, name=name, fingerprint=fingerprint)).save()
        cli.main(["report", str(run.folder.root)])
        parsed = parse(run.folder.root / "report.html")
        assert len(parsed.values("alt")) == n_pictures
        assert ("--thumbnails" in parsed.text["entries"]) == (name == "mine")
