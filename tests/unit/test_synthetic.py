"""The synthetic command: who is drawn, at what age, in which split, and how the faces look."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data_prep import dataset, verify
from data_prep.cli import main
from data_prep.sources import faces, portrait, synthetic

FILES = ("images.npy", "examples.csv", "manifest.json", "contact_sheet.png")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return dataset.load(synthetic.prepare(tmp_path_factory.mktemp("synthetic") / "small", people=20, size=16))


def drawn_at(age, *, hair=(30, 24, 26), looks=1.0, **view):
    """Draw twenty people at one age, one picture each, without noise: uint8 ``[20, 3, 32, 32]``."""
    random = np.random.default_rng(0)
    people = faces.draw_people(random, 20, looks_spread=0)
    views = faces.draw_views(random, 20)
    people = replace(people, hair=np.tile(np.float32(hair), (20, 1)), looks=np.full(20, looks, np.float32))
    views = replace(views, noise=np.zeros(20, np.float32), **view)
    return portrait.draw_pictures(random, people, np.full(20, age), views, 32)


def test_equal_settings_give_equal_bytes(small, tmp_path):
    again = synthetic.prepare(tmp_path / "again", people=20, size=16)
    for name in FILES:
        assert (again / name).read_bytes() == (small.folder / name).read_bytes()


def test_another_seed_gives_other_faces_and_ages(small, tmp_path):
    other = dataset.load(synthetic.prepare(tmp_path / "other", people=20, size=16, seed=1))
    assert other.manifest["sha256"]["images.npy"] != small.manifest["sha256"]["images.npy"]
    assert not other.examples["age"].equals(small.examples["age"])


def test_the_set_is_whole_and_forgets_whole_people(small):
    assert verify.problems(small.folder) == []
    assert small.manifest["settings"]["forget_by"] == "person"
    assert small.class_names == ["0-6", "7-12", "13-19", "20-30", "31-45", "46-55", "56-66", "67-80"]
    assert small.images.shape[1:] == (3, 16, 16)
    assert (small.examples.groupby("person_id")["split"].nunique() == 1).all()
    assert small.manifest["people"] == {"retain": 15, "forget": 1, "validation": 2, "test": 2}


@pytest.mark.parametrize("seed", range(5))
def test_the_forget_set_is_3_5_to_5_percent_of_train(seed):
    random = np.random.default_rng(seed)
    person, _, _ = synthetic._draw_ages(random, 200)
    split = synthetic._split_people(random, person, 200)[person]
    forget, retain = (split == "forget").sum(), (split == "retain").sum()
    assert 0.035 <= forget / (forget + retain) <= 0.05
    assert forget + retain == pytest.approx(1560, rel=0.1)


def test_ages_lie_in_their_group_and_groups_have_the_shares_of_mufac():
    person, group, age = synthetic._draw_ages(np.random.default_rng(0), 2000)
    low, high = np.array(synthetic.AGE_GROUPS).T
    assert ((age >= low[group]) & (age <= high[group])).all()
    assert np.bincount(group) / len(group) == pytest.approx(synthetic.GROUP_SHARES, abs=0.01)
    assert np.bincount(person).mean() == pytest.approx(10, abs=0.2)
    # Independent of each other: a person's number says nothing about the age.
    assert abs(np.corrcoef(person, group)[0, 1]) < 0.02
    groups_per_person = [len(np.unique(group[person == p])) for p in range(200)]
    assert np.mean(groups_per_person) > 2.5


def test_a_person_who_looks_twice_as_old_is_drawn_as_if_twice_as_old():
    assert np.array_equal(drawn_at(20, looks=2.0), drawn_at(40))
    assert not np.array_equal(drawn_at(20), drawn_at(40))


def test_some_people_look_older_and_some_younger_by_the_given_spread():
    looks = faces.draw_people(np.random.default_rng(0), 5000, looks_spread=0.2).looks
    assert np.log(looks).mean() == pytest.approx(0, abs=0.01)
    assert np.log(looks).std() == pytest.approx(0.2, abs=0.01)


def test_dark_hair_turns_grey_with_age():
    upright = {"exposure": np.ones(20, np.float32), "light_x": np.zeros(20, np.float32)}
    young, old = (drawn_at(age, backdrop=np.full((20, 3), 128, np.float32), **upright) for age in (25, 85))
    dark = (young.max(axis=1) < 50).sum(axis=(1, 2))  # pixels of hair, brows and lashes
    still_dark = (old.max(axis=1) < 50).sum(axis=(1, 2))
    assert (dark > 40).all()
    assert still_dark.sum() < 0.25 * dark.sum()


def test_a_child_has_larger_eyes_than_an_adult():
    wide = {"eyelids": np.ones(20, np.float32)}
    child, adult = (drawn_at(age, **wide).min(axis=1).astype(int) for age in (4, 30))
    rows = slice(12, 22)
    assert (child[:, rows, 8:24] > 200).sum() > 1.3 * (adult[:, rows, 8:24] > 200).sum()


def test_drawing_in_parts_equals_drawing_at_once(monkeypatch):
    monkeypatch.setattr(portrait, "PIXELS_AT_ONCE", 10 * 32 * 32)  # ten pictures
    random, n = np.random.default_rng(3), 25
    people, views = faces.draw_people(random, n, 0.2), faces.draw_views(random, n)
    views, ages = replace(views, noise=np.zeros(n, np.float32)), random.integers(0, 81, n)
    whole = portrait.draw_pictures(random, people, ages, views, 16)
    for rows in (np.arange(7), np.arange(7, n)):
        part = portrait.draw_pictures(random, people.take(rows), ages[rows], views.take(rows), 16)
        assert np.array_equal(part, whole[rows])


def test_noise_has_the_stated_standard_deviation():
    grey = np.full((20, 3), 128, np.float32)
    flat = {"backdrop": grey, "exposure": np.ones(20, np.float32), "light_x": np.zeros(20, np.float32)}
    clean = drawn_at(30, **flat).astype(int)
    random = np.random.default_rng(0)
    people, views = faces.draw_people(random, 20, 0), faces.draw_views(random, 20)
    people = replace(people, hair=np.tile(np.float32([30, 24, 26]), (20, 1)))
    views = replace(views, noise=np.full(20, 6, np.float32), **flat)
    noisy = portrait.draw_pictures(random, people, np.full(20, 30), views, 32).astype(int)
    corner = (noisy - clean)[:, :, :6, :4]  # backdrop, far from black and white
    assert corner.std() == pytest.approx(6, rel=0.1)


def test_the_contact_sheet_shows_six_people_at_eight_ages(small):
    content = (small.folder / "contact_sheet.png").read_bytes()
    with Image.open(io.BytesIO(content)) as sheet:
        assert sheet.format == "PNG"
        assert sheet.size == (8 * 96, 18 + 6 * 96)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"people": 9}, "--people must be from 10 to 100,000, found 9."),
        ({"size": 8}, "--size must be from 16 to 1,024 pixels, found 8."),
        ({"seed": -1}, "--seed must be from 0 to 4,294,967,295, found -1."),
    ],
)
def test_settings_out_of_range_are_named(tmp_path, setting, sentence):
    with pytest.raises(ValueError) as error:
        synthetic.prepare(tmp_path / "out", **setting)
    assert str(error.value) == sentence
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_made(tmp_path, capsys):
    out = tmp_path / "tiny"
    assert main(["synthetic", "--out", str(out), "--people", "10", "--size", "16"]) == 0
    data = dataset.load(out)
    counts = {split: len(data.rows(split)) for split in dataset.SPLITS}
    assert capsys.readouterr().out == (
        f"Prepared {len(data.images):,} pictures of 16 px in {out}: retain {counts['retain']}, "
        f"forget {counts['forget']}, validation {counts['validation']}, test {counts['test']}.\n"
        "They show 10 people: retain 7, forget 1, validation 1, test 1. "
        f"See {out / 'contact_sheet.png'}.\n"
    )


def test_a_folder_that_holds_another_set_is_left_alone(small, capsys):
    before = (small.folder / "manifest.json").read_bytes()
    assert main(["synthetic", "--out", str(small.folder), "--people", "10", "--size", "16"]) == 1
    assert "already holds another data set" in capsys.readouterr().err
    assert (small.folder / "manifest.json").read_bytes() == before
