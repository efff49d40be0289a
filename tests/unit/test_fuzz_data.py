"""The fuzz study finds nothing, and would find something."""

import pytest

from studies import frame, fuzz_data


def test_damaged_files_end_in_a_sentence(tmp_path, monkeypatch, capsys):
    path = tmp_path / "fuzz.json"
    monkeypatch.setattr("sys.argv", ["fuzz_data", "--each", "1", "--results", str(path)])
    assert fuzz_data.main() == 0
    found = frame.load(path)
    place = found.columns.index("refused")
    counts = [row[place : place + len(fuzz_data.OUTCOMES)] for row in found.rows]
    assert all(sum(row) == 1 for row in counts)
    assert sum(row[0] for row in counts) > len(counts) / 2
    assert found.notes == []


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("It is damaged."), ("refused", None)),
        (OSError(2, "No such file"), ("tracebacks", "no sentence: [Errno 2] No such file")),
        (RecursionError("too deep"), ("tracebacks", "RecursionError: too deep")),
    ],
)
def test_other_endings_are_told_apart(tmp_path, error, outcome):
    def read():
        assert (tmp_path / "file").read_bytes() == b"damaged"
        raise error

    (tmp_path / "file").write_bytes(b"whole")
    assert fuzz_data.outcome_of(fuzz_data.Target("file", tmp_path / "file", read), b"damaged") == outcome
    assert (tmp_path / "file").read_bytes() == b"whole"
