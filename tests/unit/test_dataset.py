import json

import numpy as np
import pandas as pd
import pytest

from data_prep import dataset

COMMANDS = (
    "Make one with 'python -m data_prep synthetic --out DIR' or "
    "'python -m data_prep mufac --source ZIP --out DIR'."
)


def examples() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": ["1-1", "007", "2-1", "3-1"],
            "person_id": ["1", "1", "2", "3"],
            "age_group": [0, 1, 1, 0],
            "age": [18, 18, -1, 40],
            "split": ["retain", "forget", "test", "validation"],
            "source": ["a.jpg", "b, c.jpg", "d.jpg", "남.jpg"],
            "extra": 0,
        }
    )


def images() -> np.ndarray:
    return np.arange(4 * 3 * 2 * 2).reshape(4, 3, 2, 2).astype(np.uint8)


def write(out, **changes):
    arguments = {
        "images": images(),
        "examples": examples(),
        "name": "made up",
        "class_names": ["young", "old"],
        "settings": {"size": 2},
        "seed": 3,
        "sources": {"raw.zip": "00"},
    }
    return dataset.write(out, **{**arguments, **changes})


def test_what_is_written_is_what_is_read(tmp_path):
    data = dataset.load(write(tmp_path / "deep/er/out", audit={"rows": 4}, extra_files={"sheet.png": b"png"}))
    np.testing.assert_array_equal(data.images, images())
    assert isinstance(data.images, np.memmap)
    assert not data.images.flags.writeable
    pd.testing.assert_frame_equal(data.examples, examples()[list(dataset.COLUMNS)], check_dtype=False)
    assert data.examples["image_id"].tolist() == ["1-1", "007", "2-1", "3-1"]
    assert (data.name, data.class_names, data.n_classes, data.size) == ("made up", ["young", "old"], 2, 2)
    assert (data.folder / "sheet.png").read_bytes() == b"png"
    assert {k: v for k, v in data.manifest.items() if k != "sha256"} == {
        "schema": 1,
        "name": "made up",
        "class_names": ["young", "old"],
        "n_images": 4,
        "image_shape": [3, 2, 2],
        "counts": {"retain": [1, 0], "forget": [0, 1], "validation": [1, 0], "test": [0, 1]},
        "people": {"retain": 1, "forget": 1, "validation": 1, "test": 1},
        "settings": {"size": 2},
        "seed": 3,
        "sources": {"raw.zip": "00"},
        "audit": {"rows": 4},
    }
    for name, digest in data.manifest["sha256"].items():
        assert dataset.sha256_of(data.folder / name) == digest


def test_sha256_by_the_standard_example(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert dataset.sha256_of(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_splits_and_labels(tmp_path):
    data = dataset.load(write(tmp_path / "out"))
    assert data.rows("forget").tolist() == [1]
    assert data.labels("test").tolist() == [1]
    assert data.labels("test").dtype == np.int64
    message = "Unknown split 'train': expected one of retain, forget, validation, test."
    with pytest.raises(ValueError) as caught:
        data.rows("train")
    assert str(caught.value) == message


def test_the_same_input_gives_the_same_bytes(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b", images=np.asfortranarray(images()))
    assert {f.name: f.read_bytes() for f in a.iterdir()} == {f.name: f.read_bytes() for f in b.iterdir()}


def test_fingerprint_follows_pictures_rows_and_class_names_only(tmp_path):
    one = dataset.load(write(tmp_path / "one")).fingerprint
    assert dataset.load(write(tmp_path / "two", name="x", settings={}, seed=4, sources={})).fingerprint == one
    other_images = images()
    other_images[0, 0, 0, 0] ^= 1
    other_rows = examples()
    other_rows.loc[0, "age"] = 19
    for k, changes in enumerate(
        [{"images": other_images}, {"examples": other_rows}, {"class_names": ["young", "older"]}]
    ):
        assert dataset.load(write(tmp_path / f"other{k}", **changes)).fingerprint != one


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": images()[:3]}, "3 images but 4 rows: row i must belong to image i."),
        (
            {"images": images().astype(float)},
            "images must be uint8 [n, 3, H, W], found float64 [4, 3, 2, 2].",
        ),
        ({"images": images()[:, :1]}, "images must be uint8 [n, 3, H, W], found uint8 [4, 1, 2, 2]."),
        (
            {"examples": examples().assign(split=["train", "test", "", "retain"])},
            "examples has the unknown split(s) ['', 'train'].",
        ),
        (
            {"examples": examples().assign(age_group=[0, 1, 2, 0])},
            "age_group must be an integer from 0 to 1.",
        ),
        ({"examples": examples().assign(age_group=0.5)}, "age_group must be an integer from 0 to 1."),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, changes, sentence):
    with pytest.raises(ValueError) as caught:
        write(tmp_path / "out", **changes)
    assert str(caught.value) == sentence
    assert list(tmp_path.iterdir()) == []


def test_missing_column_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^examples lacks the column\(s\) person_id, source\.$"):
        write(tmp_path / "out", examples=examples().drop(columns=["person_id", "source"]))


def test_out_may_be_empty_or_equal(tmp_path):
    (tmp_path / "out").mkdir()
    out = write(tmp_path / "out")
    before = (out / "manifest.json").stat().st_mtime_ns
    assert write(out) == out
    assert (out / "manifest.json").stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_out_that_holds_something_else_is_left_alone(tmp_path):
    out = write(tmp_path / "out")
    with pytest.raises(ValueError) as caught:
        write(out, seed=4)
    assert str(caught.value) == (
        f"{out} already holds another data set. Name another folder with --out, or delete it first."
    )
    assert json.loads((out / "manifest.json").read_text())["seed"] == 3

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(ValueError) as caught:
        write(tmp_path / "mine")
    assert str(caught.value) == (
        f"{tmp_path / 'mine'} already holds other files; name a folder that does not exist yet with --out."
    )

    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError) as caught:
        write(tmp_path / "file")
    assert str(caught.value) == (
        f"{tmp_path / 'file'} is a file; name a folder that does not exist yet with --out."
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "mine", "out"]


@pytest.mark.parametrize("failing", ["_check_shapes", "sha256_of", "_move_into_place"])
def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch, failing):
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(dataset, failing, fail)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_not_a_data_set(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ValueError) as caught:
            dataset.load(folder)
        assert str(caught.value) == f"{folder} is not a prepared dataset: it has no manifest.json. {COMMANDS}"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\udcff"])
def test_unreadable_manifest(tmp_path, text):
    out = write(tmp_path / "out")
    (out / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"manifest\.json cannot be read \(.*\)\. Prepare the data set again\.$"):
        dataset.load(out)


def test_another_schema(tmp_path):
    out = write(tmp_path / "out")
    text = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(text.replace('"schema": 1', '"schema": 2'))
    with pytest.raises(ValueError) as caught:
        dataset.load(out)
    assert str(caught.value) == (
        f"{out / 'manifest.json'} has schema 2, this version reads 1. Prepare the data set again."
    )


@pytest.mark.parametrize("name", ["images.npy", "examples.csv"])
@pytest.mark.parametrize("kept", [None, 0, 5, 0.5, 0.9])
def test_damaged_files(tmp_path, name, kept):
    out = write(tmp_path / "out")
    data = (out / name).read_bytes()
    (out / name).unlink()
    if kept is not None:
        (out / name).write_bytes(data[: int(kept * len(data)) if kept < 1 else kept])
    with pytest.raises(ValueError) as caught:
        dataset.load(out)
    assert str(caught.value).startswith(f"{out} is damaged: ")
    assert str(caught.value).endswith(" Prepare the data set again.")


@pytest.mark.parametrize("class_names", [None, 2])
def test_a_manifest_without_class_names(tmp_path, class_names):
    out = write(tmp_path / "out")
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, "class_names": class_names}))
    with pytest.raises(ValueError, match=" is damaged: "):
        dataset.load(out)
