"""A job as JSON: what goes in comes out, and anything else is refused with a sentence."""

import json
from dataclasses import replace

import pytest

from local_scorer.execution.job import Job, derive_seed
from local_scorer.models.recipes import RECIPES

TRAINED = Job("retrained", 3, "data/set", "f" * 64, RECIPES["report"], width=32, seed=5, device="cpu")
UNLEARNED = replace(TRAINED, role="unlearned", entry="mine", entry_hash="a" * 64, original=2)
SUBMITTED = replace(UNLEARNED, role="submitted", submission="some/submission.zip")


@pytest.mark.parametrize("job", [TRAINED, UNLEARNED, SUBMITTED], ids=lambda job: job.role)
def test_a_job_survives_the_way_through_json(job):
    back = Job.from_json(job.to_json())
    assert back == job
    assert back.key == job.key


def test_an_entry_unlearns_from_the_original_of_its_index():
    original = UNLEARNED.original_job
    assert (original.role, original.index, original.entry, original.original) == ("original", 2, None, 0)
    assert original.job_seed == derive_seed(5, "original", 2)
    assert original == replace(TRAINED, original=2).original_job
    assert original.original_job.index == 0


def test_a_whole_number_in_place_of_a_float_is_no_fault():
    content = json.loads(TRAINED.to_json())
    content["recipe"]["lr"] = 1
    assert Job.from_json(json.dumps(content)).recipe.lr == 1


WRONG = {
    "index": "3",
    "role": "trained",
    "device": "tpu",
    "width": 17,
    "seed": 1.5,
    "original": True,
    "entry": ["mine"],
    "entry_hash": "../../etc/passwd",
    "data": None,
    "recipe": "report",
    "fingerprint": 0,
    "submission": "one.zip",
    "schema": 0,
}


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_value_is_refused(field):
    content = {**json.loads(UNLEARNED.to_json()), field: WRONG[field]}
    with pytest.raises(ValueError, match=r"^(The|A) job") as error:
        Job.from_json(json.dumps(content))
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("value", [float("nan"), "1e-3", None, True])
def test_a_wrong_value_in_the_recipe_is_refused(value):
    content = json.loads(UNLEARNED.to_json())
    content["recipe"]["lr"] = value
    with pytest.raises(ValueError, match=r"recipe\.lr must be a finite number"):
        Job.from_json(json.dumps(content))


@pytest.mark.parametrize("change", [{"more": 1}, {"index": -1}, {"original": -1}, {"entry_hash": None}])
def test_a_wrong_set_of_fields_is_refused(change):
    with pytest.raises(ValueError, match="job"):
        Job.from_json(json.dumps({**json.loads(UNLEARNED.to_json()), **change}))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 10_000, '{"schema": 2}'])
def test_what_is_no_job_is_refused(text):
    with pytest.raises(ValueError, match="job"):
        Job.from_json(text)
