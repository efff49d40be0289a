import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from data_prep import dataset, manifest

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
    assert {k: v for k, v in data.manifest.items() if "sha256" not in k} == {
        "schema": 2,
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


def test_fingerprint_follows_everything_but_the_place(tmp_path):
    one = dataset.load(write(tmp_path / "one")).fingerprint
    assert dataset.load(write(tmp_path / "two")).fingerprint == one
    other_images = images()
    other_images[0, 0, 0, 0] ^= 1
    other_rows = examples()
    other_rows.loc[0, "age"] = 19
    for k, changes in enumerate(
        [
            {"images": other_images},
            {"examples": other_rows},
            {"class_names": ["young", "older"]},
            {"name": "x"},
            {"settings": {"size": 3}},
            {"seed": 4},
            {"sources": {"raw.zip": "01"}},
            {"audit": {"rows": 4}},
        ]
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
            {"examples": examples().assign(split=["test", "train", "", "retain"])},
            "examples.csv, line 3: split is 'train', expected one of retain, forget, validation, test.",
        ),
        (
            {"examples": examples().assign(age_group=[0, 1, 2, 0])},
            "examples.csv, line 4: age_group is '2', expected a number up to 1.",
        ),
        (
            {"examples": examples().assign(age_group=0.5)},
            "examples.csv, line 2: age_group is '0.5', expected a number up to 1.",
        ),
        (
            {"examples": examples().assign(age=None)},
            "examples.csv, line 2: age is '', expected a number up to 999.",
        ),
        ({"images": images()[:0], "examples": examples()[:0]}, "There are no images."),
        ({"seed": -1}, "The manifest cannot be written: seed must be a whole number from 0, found -1."),
        ({"name": ""}, "The manifest cannot be written: name must be a text, found ''."),
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


def test_an_equal_manifest_beside_other_pictures_is_another_data_set(tmp_path):
    out = write(tmp_path / "out")
    (out / "images.npy").write_bytes((out / "images.npy").read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="already holds another data set"):
        write(out)


def test_a_file_where_the_folder_above_should_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError) as caught:
        write(tmp_path / "file" / "deep" / "out")
    assert str(caught.value) == f"{tmp_path / 'file'} is a file; name a folder that does not exist yet with --out."


@pytest.mark.parametrize("failing", ["sha256_of", "_open_files"])
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


def again(out) -> str:
    return f"Delete {out} and prepare it again."


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff", b"[" * 100_000, b'{"schema": NaN}', b'"\\ud800"', b" " * (5 << 20)],
    ids=["empty", "cut", "no text", "deep", "NaN", "half a character", "large"],
)
def test_unreadable_manifest(tmp_path, text):
    out = write(tmp_path / "out")
    (out / "manifest.json").write_bytes(text)
    with pytest.raises(ValueError) as caught:
        dataset.load(out)
    assert str(caught.value).startswith(f"{out / 'manifest.json'} cannot be read (")
    assert str(caught.value).endswith(f"). {again(out)}")


@pytest.mark.parametrize("text", ["[]", "{}", "null", '"schema"'])
def test_json_that_is_no_manifest(tmp_path, text):
    out = write(tmp_path / "out")
    (out / "manifest.json").write_text(text)
    with pytest.raises(ValueError) as caught:
        dataset.load(out)
    assert str(caught.value) == f"{out / 'manifest.json'} is no manifest of a prepared dataset. {again(out)}"


def test_another_schema(tmp_path):
    out = write(tmp_path / "out")
    text = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(text.replace('"schema": 2', '"schema": 1'))
    with pytest.raises(ValueError) as caught:
        dataset.load(out)
    assert str(caught.value) == f"{out / 'manifest.json'} has schema 1, this version reads 2. {again(out)}"


def rewrite_manifest(out, change, restamp=True):
    """Change the manifest, and give it the hash of its new content."""
    content = json.loads((out / "manifest.json").read_text())
    change(content)
    if restamp:
        content["content_sha256"] = manifest.content_hash(content)
    (out / "manifest.json").write_text(json.dumps(content))


FIELDS = [
    "name", "class_names", "n_images", "image_shape", "counts", "people", "settings", "seed", "sources", "audit",
    "sha256",
]  # fmt: skip


@pytest.mark.parametrize("field", [*FIELDS, "content_sha256"])
def test_a_manifest_without_a_field(tmp_path, field):
    out = write(tmp_path / "out")
    rewrite_manifest(out, lambda content: content.pop(field), restamp=field != "content_sha256")
    with pytest.raises(ValueError) as caught:
        dataset.load(out)
    assert str(caught.value) == f"{out / 'manifest.json'} is damaged: {field} is missing. {again(out)}"


OTHER_FORMS = [
    (field, value)
    for field in FIELDS
    for value in (None, 1.5, -1, True, "", [], [None], {"x": None}, {"x": [1]})
    if not (field == "settings" and isinstance(value, dict)) and not (field == "audit" and value is None)
]


@pytest.mark.parametrize(("field", "value"), OTHER_FORMS)
def test_a_manifest_with_a_field_of_another_form(tmp_path, field, value):
    out = write(tmp_path / "out")
    rewrite_manifest(out, lambda content: content.update({field: value}))
    with pytest.raises(ValueError) as caught:
        dataset.load(out)
    assert str(caught.value).startswith(f"{out / 'manifest.json'} is damaged: {field} must be a ")
    assert str(caught.value).endswith(again(out))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"}, {"class_names": ["old", "young"]}, {"seed": 4}, {"settings": {}}, {"sources": {}},
        {"audit": {"rows": 4}}, {"more": 1},
    ],
)  # fmt: skip
def test_a_manifest_that_was_changed(tmp_path, change):
    out = write(tmp_path / "out")
    rewrite_manifest(out, lambda content: content.update(change), restamp=False)
    with pytest.raises(ValueError) as caught:
        dataset.load(out)
    assert str(caught.value) == (
        f"{out / 'manifest.json'} was changed after it was written: its content_sha256 does not fit. {again(out)}"
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
    assert str(caught.value).endswith(f" {again(out)}")


NO_IMAGES = "images.npy does not begin as an array of uint8 [n, 3, H, W] does."


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (b"(4, 3, 2, 2)", b"(5, 3, 2, 2)", "images.npy has 176 bytes, and by its header 188."),
        (b"(4, 3, 2, 2)", b"(9999999999, 3, 99999, 99999)", NO_IMAGES),  # longer than the header says it is
        (
            b"(4, 3, 2, 2), }" + b" " * 18,
            b"(9999999999, 3, 99999, 99999), } ",
            "by its header 299,994,000,000,000,600,125.",
        ),
        (b"(4, 3, 2, 2)", b"(0, 3, 2, 2)", NO_IMAGES),
        (b"(4, 3, 2, 2)", b"(4, 3, 2, 2,", NO_IMAGES),
        (b"'|u1'", b"'|O8'", NO_IMAGES),
        (b"False", b"True ", NO_IMAGES),
        (b"'shape'", b"[[[[[[[", NO_IMAGES),
        (b"'shape'", b"\0\0\0\0\0\0\0", NO_IMAGES),
        (b"NUMPY\x01", b"NUMPY\x02", NO_IMAGES),
        (b"\x93", b"\x92", NO_IMAGES),
    ],
)
def test_a_damaged_header_is_never_evaluated(tmp_path, old, new, sentence):
    out = write(tmp_path / "out")
    data = (out / "images.npy").read_bytes()
    assert old in data
    (out / "images.npy").write_bytes(data.replace(old, new))
    with pytest.raises(ValueError) as caught:
        dataset.load(out)
    assert str(caught.value).endswith(f"{sentence} {again(out)}")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("007,", "007,7,", "examples.csv, line 3: expected a value for each of the 6 columns, found 7."),
        ("007,", "", "examples.csv, line 3: expected a value for each of the 6 columns, found 5."),
        ("007,1,1", "007,1,x", "examples.csv, line 3: age_group is 'x', expected a number up to 1."),
        ("007,1,1", "007,1,1.0", "examples.csv, line 3: age_group is '1.0', expected a number up to 1."),
        ("-1,test", "1e3,test", "examples.csv, line 4: age is '1e3', expected a number up to 999."),
        ("007", "0\x007", "examples.csv is not readable as CSV text (it holds a NUL byte)."),
        ('"b, ', "b, ", "examples.csv, line 3: expected a value for each of the 6 columns, found 7."),
        ('c.jpg"', "c.jpg", "examples.csv is not readable as CSV text (unexpected end of data)."),
        ("source", "sauce", "examples.csv has no column source."),
        ("\nsource", "\nsplit", "examples.csv has no column source."),
    ],
)
def test_damaged_rows(tmp_path, old, new, sentence):
    out = write(tmp_path / "out")
    text = (out / "examples.csv").read_text()
    (out / "examples.csv").write_text(text.replace(old, new))
    if old == "\nsource":
        (out / "examples.csv").write_text(text.replace("source", "split"))
    with pytest.raises(ValueError) as caught:
        dataset.load(out)
    assert str(caught.value) == f"{out} is damaged: {sentence} {again(out)}"


@pytest.mark.parametrize("name", ["NA", "null", "nan", "", "1.0", "=1+1", 'a "b"', "a\nb"])
def test_names_come_back_as_they_are(tmp_path, name):
    out = write(tmp_path / "out", examples=examples().assign(person_id=name))
    assert dataset.load(out).columns["person_id"].tolist() == [name] * 4


def test_a_data_set_is_read_without_pandas(tmp_path):
    script = (
        "import sys; from data_prep import dataset; data = dataset.load(sys.argv[1]); data.labels('test'); "
        "assert 'pandas' not in sys.modules; print(len(data.examples))"
    )
    command = [sys.executable, "-c", script, str(write(tmp_path / "out"))]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"4\n"
