"""A stored run: what is on disk comes back typed, once, and damage gets a sentence."""

import doctest
import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from local_scorer.runs import schema
from local_scorer.runs.record import SCHEMA, Entry, Run, read_record
from local_scorer.runs.store import Failure, RunFolder
from tests.helpers.runs import HEADER, job_result, run_record, save_jobs, saved_run


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


@pytest.fixture
def run(folder):
    """A run of N=3 with one entry and one that could not be read; the confidence of model n is n."""
    results = [job_result(n, seconds=n + 1, retain_confidence=[n, n, n]) for n in range(3)]
    folder.save_result("original", job_result(5.0))
    entry = Entry("mine", "h", save_jobs(folder, "mine", results))
    keys = [save_jobs(folder, name, results) for name in ("retrained", "ceiling")]
    return saved_run(folder.root, run_record(*keys, entry, Entry("gone", None, (), "It cannot be read.")))


def test_doctests():
    found = doctest.testmod(schema)
    assert found.attempted >= 3
    assert found.failed == 0


def test_record_comes_back_as_it_was(run):
    assert Run.open(run.folder.root).record == run.record
    assert run.record.entries[0].keys == ("mine0", "mine1", "mine2")


def test_a_record_may_be_changed_and_saved_again(run):
    Run(run.folder, replace(run.record, rules="notebook")).save()
    assert Run.open(run.folder.root).record.rules == "notebook"


def test_names_and_keys(run):
    assert run.names == ("mine", "gone")
    assert run.readable == ("mine",)
    assert run.keys[:2] == ("original", "retrained0")
    assert len(run.keys) == 1 + 3 + 3 + 3


def test_models_by_name(run):
    mine = run.models("mine")
    np.testing.assert_array_equal(mine.logits[:, 0, 0], [0, 1, 2])
    np.testing.assert_array_equal(mine.wall_seconds, [1, 2, 3])
    np.testing.assert_array_equal(mine.retain_confidence, [[0] * 3, [1] * 3, [2] * 3])
    np.testing.assert_allclose(mine.validation_confidence, [[0, 0], [1, 1], [2, 2]], rtol=1e-6)
    assert mine.test_logits.shape == (3, 2, 2)
    assert run.models("retrained").n_models == run.retrained.n_models == 3
    assert run.original.n_models == 1
    np.testing.assert_array_equal(run.models("no unlearning").logits[:, 0, 0], [5, 5, 5])


def test_models_are_read_once(run):
    first = run.models("mine")
    for key in run.record.entries[0].keys:
        run.folder.result_path(key).unlink()
    assert run.models("mine") is first
    with pytest.raises(ValueError, match=r"mine0\.npz is missing: the run is not finished\."):
        Run.open(run.folder).models("mine")


def test_what_is_not_there_gets_a_sentence(run):
    with pytest.raises(ValueError, match=r"has no entry 'other'; it has gone, mine, no unlearning, retrained\.$"):
        run.models("other")
    with pytest.raises(ValueError, match=r"has no models: its file could not be read\.$"):
        run.models("gone")


def test_failures_and_missing_runs(run):
    assert run.failure("mine") is None
    run.folder.result_path("mine1").unlink()
    assert run.missing("mine") == ("mine1",)
    assert run.failure("mine") is None
    run.folder.save_failure("mine1", Failure("exception", "KeyError"))
    assert run.failure("mine") == (1, Failure("exception", "KeyError"))


def test_headers_are_those_of_finished_jobs(run):
    run.folder.result_path("mine1").write_bytes(b"damaged")
    assert run.headers(["mine0", "mine1", "nowhere"]) == (HEADER,)


def test_results_of_other_data_are_refused(run):
    run.folder.save_result("mine1", job_result(labels=(0, 1, 1)))
    with pytest.raises(ValueError, match="belong to different data"):
        Run.open(run.folder).models("mine")


def test_folder_without_a_run(folder):
    with pytest.raises(ValueError) as error:
        Run.open(folder)
    assert str(error.value) == (
        f"{folder.root} holds no run: it has no run.json. "
        "Make one with 'python -m local_scorer leaderboard --out DIR'."
    )


def changed(path, value):
    """Return a record as JSON with the field at `path` changed; ... takes it out."""
    content = json.loads(json.dumps(asdict(run_record(["a"], ["b"], Entry("mine", "h", ("c",))))))
    parent = content
    for name in path[:-1]:
        parent = parent[name]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (["rules"], None, "rules must be text, found null"),
        (["n_models"], "3", "n_models must be a whole number, found '3'"),
        (["n_models"], True, "n_models must be a whole number, found True"),
        (["data"], None, "data must be an object, found null"),
        (["data", "counts", "forget"], None, "data.counts.forget must be a whole number, found null"),
        (["data", "counts"], [], "data.counts must be an object, found []"),
        (["data", "name"], ..., "data.name is missing"),
        (["settings", "recipe", "lr"], "fast", "settings.recipe.lr must be a finite number, found 'fast'"),
        (["settings", "more"], 1, "settings.more is no field that is known here"),
        (["retrained"], None, "retrained must be a list, found null"),
        (["retrained"], [], "it names no retrained models"),
        (["ceiling"], [1], "ceiling[0] must be text, found 1"),
        (["entries", 0], None, "entries[0] must be an object, found null"),
        (["entries", 0, "keys"], "abc", "entries[0].keys must be a list, found 'abc'"),
        (["entries", 0, "keys"], ["../../other"], "'../../other' is no key of a job"),
        (["entries", 0, "name"], "retrained", "two entries have the name 'retrained'"),
        (["provenance", "environment"], {}, "provenance.environment.python is missing"),
        (["schema"], 99, f"it has schema 99, this version reads {SCHEMA}"),
        (["schema"], ..., "schema is missing"),
    ],
)
def test_a_damaged_record_is_refused_with_a_sentence(path, value, sentence):
    with pytest.raises(ValueError) as error:
        read_record(changed(path, value))
    assert str(error.value) == sentence


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_record_is_named(folder, text):
    path = folder.root / "run.json"
    path.parent.mkdir()
    path.write_bytes(text)
    with pytest.raises(ValueError) as error:
        Run.open(folder)
    assert str(error.value).startswith(f"{path} cannot be read: it ")
    assert str(error.value).endswith(". Run the leaderboard again.")
