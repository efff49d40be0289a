import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_prep import dataset, manifest, verify

SPLITS = ["retain"] * 4 + ["forget"] * 2 + ["validation"] * 2 + ["test"] * 2


def write(out: Path, changes: dict | None = None, settings: dict | None = None, images=None, **more) -> Path:
    """Write ten pictures of seven people, with some cells of examples.csv changed."""
    examples = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(10)],
            "person_id": ["P1", "P1", "P2", "P3", "P4", "P4", "P5", "P6", "P7", "P7"],
            "age_group": [0, 1, 0, 1, 0, 1, 0, 1, 0, 1],
            "age": [-1] * 10,
            "split": SPLITS,
            "source": [f"file{k}" for k in range(10)],
        }
    )
    for (row, column), value in (changes or {}).items():
        examples.loc[row, column] = value
    if images is None:
        images = np.arange(10 * 3 * 4 * 4).reshape(10, 3, 4, 4).astype(np.uint8)
    return dataset.write(
        out,
        images=images,
        examples=examples,
        name="made up",
        class_names=["young", "old"],
        settings={"forget_by": "person"} if settings is None else settings,
        seed=0,
        sources={},
        **more,
    )


def edit_manifest(folder: Path, **changes) -> None:
    """Change the manifest, and give it the hash of its new content."""
    path = folder / "manifest.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({**content, "content_sha256": manifest.content_hash(content)}))


def run(folder: Path) -> int:
    parser = argparse.ArgumentParser()
    verify.add_arguments(parser)
    return verify.run(parser.parse_args([str(folder)]))


def test_whole_data_set(tmp_path, capsys):
    folder = write(tmp_path / "out")
    assert verify.problems(folder) == []
    assert run(folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", "files"],
        ["ok", "manifest.json"],
        ["ok", "images.npy"],
        ["ok", "examples.csv"],
        ["ok", "counts"],
        ["ok", "image_id"],
        ["ok", "train/validation/test"],
        ["ok", "retain/forget"],
        ["ok", "pictures"],
    ]
    assert lines[4].endswith("As the manifest says: retain 4, forget 2, validation 2, test 2.")
    assert lines[6].endswith("None of 7 people stands in two of them.")
    assert lines[7].endswith("None of 4 people stands in two of them.")


def test_a_problem_gives_exit_code_1(tmp_path, capsys):
    folder = write(tmp_path / "out", {(9, "person_id"): "P1"})
    assert run(folder) == 1
    problems = [line for line in capsys.readouterr().out.splitlines() if line.startswith("PROBLEM")]
    assert [line.split()[1] for line in problems] == ["train/validation/test"]


def test_not_a_data_set(tmp_path, capsys):
    assert run(tmp_path) == 1
    assert capsys.readouterr().out.startswith(f"PROBLEM  files                 {tmp_path} is not a prepared")
    assert len(verify.problems(tmp_path / "nothing")) == 1


def test_one_changed_pixel(tmp_path):
    folder = write(tmp_path / "out")
    images = np.load(folder / "images.npy")
    stated = dataset.sha256_of(folder / "images.npy")
    images[3, 0, 0, 0] ^= 1
    np.save(folder / "images.npy", images)
    found = dataset.sha256_of(folder / "images.npy")
    assert verify.problems(folder) == [f"images.npy: SHA-256 is {found}, the manifest says {stated}."]


def test_a_relabelled_row(tmp_path):
    folder = write(tmp_path / "out")
    text = (folder / "examples.csv").read_text()
    (folder / "examples.csv").write_text(text.replace("i0,P1,0", "i0,P1,1"))
    problems = verify.problems(folder)
    assert problems[0].startswith("examples.csv: SHA-256 is ")
    assert problems[1:] == [
        "counts: The manifest does not fit the rows (counts of retain: found [1, 3], stated [2, 2])."
    ]


def test_a_missing_row(tmp_path):
    folder = write(tmp_path / "out")
    lines = (folder / "examples.csv").read_text().splitlines(keepends=True)
    (folder / "examples.csv").write_text("".join(lines[:-1]))
    assert verify.problems(folder) == [
        f"files: {folder} is damaged: 10 images but 9 rows: row i must belong to image i. "
        f"Delete {folder} and prepare it again."
    ]


def test_rows_that_the_audit_misses(tmp_path):
    audit = {"rows": 15, "dropped": {"repeated picture": 4}}
    assert verify.problems(write(tmp_path / "out", audit=audit)) == [
        "counts: The manifest does not fit the rows (rows that the audit kept: found 10, stated 11)."
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n_images": 11}, "n_images: found 10, stated 11"),
        ({"image_shape": [3, 8, 8]}, "image_shape: found [3, 4, 4], stated [3, 8, 8]"),
        (
            {"people": {"retain": 3, "forget": 1, "validation": 2, "test": 2}},
            "people of test: found 1, stated 2",
        ),
        (
            {"counts": {"retain": [2, 2], "forget": [1, 1], "validation": [1, 1], "test": [2, 0]}},
            "counts of test: found [1, 1], stated [2, 0]",
        ),
    ],
)
def test_a_manifest_that_does_not_fit(tmp_path, changes, sentence):
    folder = write(tmp_path / "out")
    edit_manifest(folder, **changes)
    assert verify.problems(folder) == [f"counts: The manifest does not fit the rows ({sentence})."]


@pytest.mark.parametrize(
    "changes",
    [{"name": "x"}, {"class_names": ["old", "young"]}, {"seed": 1}, {"settings": {}}, {"sources": {"a": "b"}}],
)
def test_a_changed_manifest(tmp_path, changes):
    folder = write(tmp_path / "out")
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    (problem,) = verify.problems(folder)
    assert problem.startswith(f"files: {path} was changed after it was written: its content_sha256 does not fit.")


@pytest.mark.parametrize(
    ("changes", "line"),
    [({(4, "image_id"): "i2"}, 6), ({(2, "source"): None}, 4), ({(7, "person_id"): None}, 9)],
)
def test_image_ids_and_names(tmp_path, changes, line):
    assert verify.problems(write(tmp_path / "out", changes)) == [
        f"image_id: 1 rows lack a name or repeat an image_id, line {line} of examples.csv first."
    ]


TORN = [
    (0, 4, "retain/forget: 1 of 4 people stand in two of them, P4 for one."),
    (0, 6, "train/validation/test: 1 of 7 people stand in two of them, P5 for one."),
    (5, 8, "train/validation/test: 1 of 7 people stand in two of them, P7 for one."),
    (7, 8, "train/validation/test: 1 of 6 people stand in two of them, P7 for one."),
]


@pytest.mark.parametrize(("row", "other", "sentence"), TORN)
def test_a_person_in_two_splits(tmp_path, row, other, sentence):
    person = ["P1", "P1", "P2", "P3", "P4", "P4", "P5", "P6", "P7", "P7"][other]
    folder = write(tmp_path / "out", {(row, "person_id"): person})
    assert verify.problems(folder) == [sentence]
    assert verify.problems(write(tmp_path / "none", {(row, "person_id"): person}, settings={})) == [sentence]
    by_row = write(tmp_path / "by_row", {(row, "person_id"): person}, settings={"forget_by": "row"})
    assert verify.problems(by_row) == ([] if sentence.startswith("retain") else [sentence])
    raw = write(tmp_path / "raw", {(row, "person_id"): person}, settings={"forget_by": "row", "raw": True})
    assert verify.problems(raw) == []
    found = [check.found for check in verify.checks(raw)]
    assert f"{sentence.split(': ')[1]} This set was drawn by rows." in found


def test_a_picture_twice(tmp_path):
    images = np.arange(10 * 3 * 4 * 4).reshape(10, 3, 4, 4).astype(np.uint8)
    images[[5, 8]] = images[1]
    sentence = "2 images repeat an earlier one, image 5 is image 1 for one."
    assert verify.problems(write(tmp_path / "out", images=images)) == [f"pictures: {sentence}"]
    by_row = write(tmp_path / "by_row", images=images, settings={"forget_by": "row"})
    assert verify.problems(by_row) == []
    assert verify.checks(by_row)[-1].found == f"{sentence} This set was drawn by rows."
