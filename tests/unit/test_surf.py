"""CASIA-SURF CeFA as the organisers prepared it, on a made-up tree of its shape."""

import random
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep import cli, dataset, verify
from data_prep.sources import surf

PEOPLE, PICTURES = 40, 5
NAMES = [f"{1 + number // 20}_{number:03d}" for number in range(PEOPLE)]
AGES = [20 + (7 * number) % 41 for number in range(PEOPLE)]  # 20 to 60


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """A tree of 40 people in two groups, 5 pictures each; person 3 has none."""
    source = tmp_path_factory.mktemp("surf")
    shuffled = np.random.default_rng(1).permutation(PEOPLE)
    lines = [f"{NAMES[number]} {AGES[number]} {'MF'[number % 2]}" for number in shuffled]
    (source / "Age_Gender.txt").write_text("\n".join(lines) + "\n")
    noise = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        folder = source / "WBackground" / f"group{1 + number // 20}" / name / "real.rssdk" / "color"
        folder.mkdir(parents=True)
        for picture in range(PICTURES if number != 3 else 0):
            coarse = Image.fromarray(noise.integers(0, 255, (6, 5, 3), dtype=np.uint8))
            coarse.resize((60, 72), Image.Resampling.BICUBIC).save(folder / f"{picture:04d}.jpg", quality=95)
    return source


@pytest.fixture
def broken(made_up, tmp_path):
    return shutil.copytree(made_up, tmp_path / "source")


def test_it_follows_the_organisers(made_up, tmp_path):
    data = dataset.load(surf.prepare(made_up, tmp_path / "out"))
    n = (PEOPLE - 1) * PICTURES
    assert data.images.shape == (n, 3, 32, 32)
    order = list(range(n))  # pictures by path
    random.Random(43).shuffle(order)
    sources = data.examples["source"].tolist()
    assert sources == sorted(sources)
    split = data.examples["split"].to_numpy()
    assert set(order[: int(0.8 * n)]) == set(np.flatnonzero((split == "retain") | (split == "forget")))
    assert set(order[int(0.8 * n) : int(0.9 * n)]) == set(np.flatnonzero(split == "validation"))
    assert set(order[int(0.9 * n) :]) == set(np.flatnonzero(split == "test"))
    train_people = sorted(set(data.examples["person_id"][(split == "retain") | (split == "forget")]))
    assert set(data.examples["person_id"][split == "forget"]) == set(train_people[:15])
    assert not set(data.examples["person_id"][split == "retain"]) & set(train_people[:15])
    assert set(data.examples["person_id"][split == "test"]) & set(train_people[:15])  # the organisers' leak
    assert data.manifest["settings"]["raw"] is True
    assert verify.problems(data.folder) == []


def test_ages_fall_into_ten_bins_of_equal_width(made_up, tmp_path):
    examples = dataset.load(surf.prepare(made_up, tmp_path / "out")).examples
    # from the youngest, 20, to the oldest and one, 61: bins of 4.1 years
    assert examples["age_group"].tolist() == [int((age - 20) / 4.1) for age in examples["age"]]
    assert dict(zip(examples["person_id"], examples["age"], strict=True))["1_005"] == AGES[5]
    assert examples["age_group"].min() == 0 and examples["age_group"].max() == 9


def test_pictures_are_resized(made_up, tmp_path):
    data = dataset.load(surf.prepare(made_up, tmp_path / "out", size=16))
    source = made_up / data.examples["source"][7]
    with Image.open(source) as picture:
        expected = np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.images[7], expected)
    assert data.examples["image_id"][7] == "1_001-2"


def test_by_person_nobody_stands_in_two_splits(made_up, tmp_path):
    data = dataset.load(surf.prepare(made_up, tmp_path / "out", by_person=True))
    splits = data.examples.groupby("person_id")["split"].nunique()
    assert (splits == 1).all()
    assert data.manifest["people"] == {"retain": 31 - 15, "forget": 15, "validation": 4, "test": 4}
    assert data.manifest["settings"]["raw"] is False
    assert verify.problems(data.folder) == []


def test_by_person_repeated_pictures_are_left_out(broken, tmp_path):
    pictures = sorted(broken.glob("WBackground/*/*/*/*/*.jpg"))
    shutil.copy(pictures[0], pictures[8])
    data = dataset.load(surf.prepare(broken, tmp_path / "out", by_person=True))
    assert len(data.images) == (PEOPLE - 1) * PICTURES - 1
    assert verify.problems(data.folder) == []
    everything = dataset.load(surf.prepare(broken, tmp_path / "all"))
    assert len(everything.images) == (PEOPLE - 1) * PICTURES


def test_the_same_bytes_twice(made_up, tmp_path):
    for name in ("a", "b"):
        surf.prepare(made_up, tmp_path / name)
    for file in ("images.npy", "examples.csv", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def rewrite_ages(change):
    def spoil(source):
        file = source / "Age_Gender.txt"
        file.write_text(change(file.read_text()))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            lambda source: (source / "Age_Gender.txt").unlink(),
            "{source}/Age_Gender.txt does not exist. Name the folder that holds it with --source.",
        ),
        (rewrite_ages(lambda text: ""), "{source}/Age_Gender.txt is empty."),
        (
            rewrite_ages(lambda text: "1_000 old M\n" + text),
            "{source}/Age_Gender.txt, line 1: expected \"PERSON AGE GENDER\", found '1_000 old M'.",
        ),
        (rewrite_ages(lambda text: "1_000 20 M\n" + text), "{source}/Age_Gender.txt, line "),
        (
            rewrite_ages(lambda text: text.replace("2_030", "9_999")),
            "{source}/Age_Gender.txt has no line for 2_030, who has pictures. Add it.",
        ),
        (
            lambda source: shutil.rmtree(source / "WBackground"),
            "{source} has no pictures WBackground/*/*/real.rssdk/color/*.jpg: unpack them there.",
        ),
        (
            lambda source: next(source.glob("WBackground/*/1_004/*/*/0002.jpg")).write_bytes(b"no picture"),
            "{source}/WBackground/group1/1_004/real.rssdk/color/0002.jpg is not a whole JPEG picture (",
        ),
        (
            lambda source: shutil.rmtree(source / "WBackground" / "group2") or thin_out(source),
            "Only 15 people have training pictures: 15 are forgotten, and some have to remain.",
        ),
    ],
)
def test_each_fault_gets_a_sentence(broken, spoil, sentence, tmp_path, capsys):
    spoil(broken)
    assert cli.main(["surf", "--source", str(broken), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {sentence.format(source=broken)}")
    assert not (tmp_path / "out").exists()


def thin_out(source):
    for folder in sorted(source.glob("WBackground/group1/*"))[16:]:
        shutil.rmtree(folder)


def test_the_command_says_what_it_did(made_up, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["surf", "--source", str(made_up), "--out", str(out), "--by-person"]) == 0
    assert capsys.readouterr().out == (
        f"Prepared 195 pictures of 32 px in {out}; pictures and people: retain 80 of 16, forget 75 of 15, "
        "validation 20 of 4, test 20 of 4.\n"
    )
    assert cli.main(["surf", "--source", str(made_up), "--out", str(out), "--size", "4"]) == 2
    assert capsys.readouterr().err == "error: --size must be from 8 to 1,024 pixels, found 4.\n"
