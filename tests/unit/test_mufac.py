import argparse
import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_prep import dataset, verify
from data_prep.sources import mufac
from data_prep.sources.mufac import PUBLISHED_AT
from tests.helpers.mufac import ROWS, files, jpeg, name, pixels, write_folder, write_zip

REAL = Path(
    os.environ.get("MUFAC_ZIP")
    or Path(__file__).resolve().parents[3] / "shared/data/custom_korean_family_dataset_resolution_128.zip"
)
AGAIN = f"Get the file again from {PUBLISHED_AT}."
TRAIN_CSV = "custom_train_dataset.csv"
FIRST = "train_images/F0001_AGE_D_18_a1.jpg"


@pytest.fixture
def content() -> dict[str, bytes]:
    return files()


def prepare(tmp_path: Path, content: dict[str, bytes], **settings) -> dataset.PreparedDataset:
    source = write_zip(tmp_path / "mufac.zip", content)
    return dataset.load(mufac.prepare(source, tmp_path / "out", **settings))


def rows_of(data: dataset.PreparedDataset) -> dict[str, tuple]:
    """Return image_id, person_id, age group and age of each source file, by family, role and picture."""
    return {
        Path(row.source).stem: (row.image_id, row.person_id, row.age_group, row.age)
        for row in data.examples.itertuples()
    }


def error_of(tmp_path: Path, source: Path, **settings) -> str:
    """Return the sentence of a refused source, with the folder of the test cut out."""
    with pytest.raises(ValueError) as caught:
        mufac.prepare(source, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))
    return str(caught.value).replace(f"{tmp_path}{os.sep}", "")


def test_clean_set_by_hand(tmp_path, content):
    data = prepare(tmp_path, content)
    assert rows_of(data) == {
        "F0001_AGE_D_18_a1": ("P0001-1", "P0001", 0, 18),
        "F0001_AGE_D_18_b1": ("P0001-2", "P0001", 1, 18),
        "F0001_AGE_GM_70_g1": ("P0002-1", "P0002", 6, 70),
        "F0002_AGE_GM_70_h1": ("P0002-3", "P0002", 7, 70),
        "F0003_AGE_D_18_c1": ("P0001-4", "P0001", 2, 18),
        "F0005_AGE_M_45_d1": ("P0003-3", "P0003", 3, 45),
        "F0007_AGE_F_50_f1": ("P0005-1", "P0005", 5, 50),
        "F0801_AGE_S_9_a1": ("P0004-3", "P0004", 0, 9),
        "F0801_AGE_S_9_b2": ("P0004-4", "P0004", 1, 9),
        "F0803_AGE_M_40_d1": ("P0007-1", "P0007", 3, 40),
        "F0851_AGE_D_20_c1": ("P0006-3", "P0006", 2, 20),
        "F0851_AGE_D_20_c2": ("P0006-4", "P0006", 2, 20),
        "F0852_AGE_F_30_d1": ("P0008-1", "P0008", 3, 30),
    }
    folders = {"train_images": {"retain", "forget"}, "val_images": {"validation"}, "test_images": {"test"}}
    for source, split in zip(data.examples["source"], data.examples["split"], strict=True):
        assert split in folders[source.split("/")[0]]
    assert data.class_names == ["0-6", "7-12", "13-19", "20-30", "31-45", "46-55", "56-66", "67-80"]
    assert data.manifest["settings"]["forget_by"] == "person"
    assert verify.problems(data.folder) == []


def test_audit_by_hand(tmp_path, content):
    content["train_images/nobody.jpg"] = jpeg(99)
    audit = prepare(tmp_path, content).manifest["audit"]
    forget = {key: audit.pop(key) for key in list(audit) if key.startswith("forget")}
    assert audit == {
        "rows": 21,
        "unlisted_pictures": 1,
        "unique_pictures": 16,
        "unique_pictures_exact": 17,
        "duplicate_groups": 5,
        "duplicate_groups_exact": 4,
        "duplicate_groups_near": 1,
        "groups_across_families": 5,
        "groups_across_families_exact": 4,
        "groups_across_families_near": 1,
        "groups_across_splits": 2,
        "groups_across_splits_exact": 2,
        "groups_across_splits_near": 0,
        "label_conflicts": 1,
        "label_conflicts_exact": 1,
        "label_conflicts_near": 0,
        "identities_before": 13,
        "identities_after": 8,
        "identities_after_exact": 9,
        "dropped": {
            "picture with different labels": 2,
            "person kept in a smaller split": 4,
            "repeated picture": 2,
        },
    }
    assert forget["forget_people"] == 1
    assert forget["forget_pictures_in_retain"] == forget["forget_people_in_retain"] == 0


def test_a_near_copy_with_another_label_is_a_conflict(tmp_path):
    rows = [(*row[:4], "b1", -1) if row[-1] == -1 else row for row in ROWS]
    data = prepare(tmp_path, files(rows))
    assert data.manifest["audit"]["label_conflicts"] == 2
    assert data.manifest["audit"]["label_conflicts_near"] == 1
    assert "F0001_AGE_D_18_a1" not in rows_of(data)
    assert "F0003_AGE_D_18_b1" not in rows_of(data)


def test_the_smaller_of_validation_and_test_keeps_a_person(tmp_path):
    more = [("test", "F0853", "M", 33, f"d{k}", 30 + k) for k in range(1, 5)]  # now test is the larger one
    kept = rows_of(prepare(tmp_path, files(ROWS + more)))
    assert {"F0802_AGE_D_20_c1", "F0802_AGE_D_20_d1"} <= set(kept)
    assert not {"F0851_AGE_D_20_c1", "F0851_AGE_D_20_c2"} & set(kept)


def test_train_gives_way_even_where_it_is_the_smallest(tmp_path):
    more = [("val", "F0853", "M", 33, f"d{k}", 30 + k) for k in range(1, 10)]
    more += [("test", "F0854", "M", 33, f"d{k}", 40 + k) for k in range(1, 20)]
    kept = rows_of(prepare(tmp_path, files(ROWS + more)))
    assert "F0801_AGE_S_9_a1" in kept
    assert "F0006_AGE_S_9_a1" not in kept


def test_pictures_are_those_of_their_rows(tmp_path, content):
    data = prepare(tmp_path, content, size=16)
    assert data.images.shape == (13, 3, 16, 16)
    for image, source in zip(data.images, data.examples["source"], strict=True):
        picture = Image.open(io.BytesIO(content[source])).resize((16, 16), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(image, np.asarray(picture).transpose(2, 0, 1))


def test_full_size_keeps_the_decoded_pixels(tmp_path, content):
    data = prepare(tmp_path, content, size=32)
    picture = np.asarray(Image.open(io.BytesIO(content[FIRST])))
    np.testing.assert_array_equal(data.images[0], picture.transpose(2, 0, 1))
    assert np.abs(picture.astype(int) - pixels(1)).mean() < 3


def test_zip_folder_and_an_extra_top_folder_give_the_same_data(tmp_path, content):
    sources = [
        write_zip(tmp_path / "flat.zip", content),
        write_zip(tmp_path / "wrapped.zip", {**content, "../__MACOSX/._x": b"?"}, top="MUFAC 128/"),
        write_folder(tmp_path / "flat", content),
        write_folder(tmp_path / "wrapped/MUFAC 128", content).parent,
    ]
    outs = [mufac.prepare(source, tmp_path / f"out{k}") for k, source in enumerate(sources)]
    for file in ("images.npy", "examples.csv"):
        assert len({(out / file).read_bytes() for out in outs}) == 1
    manifests = [(out / "manifest.json").read_bytes() for out in outs]
    assert manifests[2] == manifests[3]
    assert list(dataset.load(outs[0]).manifest["sources"]) == ["flat.zip"]
    assert list(dataset.load(outs[2]).manifest["sources"]) == [
        "custom_train_dataset.csv",
        "train_images/",
        "custom_val_dataset.csv",
        "val_images/",
        "custom_test_dataset.csv",
        "test_images/",
    ]


@pytest.mark.parametrize("raw", [False, True])
def test_the_same_input_gives_the_same_bytes(tmp_path, content, raw):
    source = write_zip(tmp_path / "mufac.zip", content)
    a = mufac.prepare(source, tmp_path / "a", raw=raw, forget_fraction=0.2)
    b = mufac.prepare(source, tmp_path / "b", raw=raw, forget_fraction=0.2)
    assert [f.name for f in sorted(a.iterdir())] == ["examples.csv", "images.npy", "manifest.json"]
    for file in a.iterdir():
        assert file.read_bytes() == (b / file.name).read_bytes()


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6])
@pytest.mark.parametrize("seed", range(8))
def test_forget_set_is_whole_people_and_just_large_enough(fraction, seed):
    people = np.repeat(np.arange(10), np.arange(1, 11))  # 55 pictures of ten people
    rows = pd.DataFrame({"published_split": ["train"] * 55 + ["test"] * 5, "person": [*people, *range(10, 15)]})
    split = mufac._draw_forget_set(rows, fraction, seed, by_row=False)
    assert (split[55:] == "test").all()
    forgotten, sizes = np.unique(people[split[:55] == "forget"], return_counts=True)
    assert sizes.tolist() == (forgotten + 1).tolist()
    assert sizes.sum() >= fraction * 55 > sizes.sum() - sizes.max()


def test_forget_set_follows_the_seed(tmp_path, content):
    def forgotten(seed: int) -> tuple:
        out = mufac.prepare(source, tmp_path / f"out{seed}", seed=seed)
        return tuple(dataset.load(out).examples.query("split == 'forget'")["person_id"])

    source = write_zip(tmp_path / "mufac.zip", content)
    assert len({forgotten(seed) for seed in range(8)}) > 1


def test_exact_fractions_are_not_rounded_up():
    rows = pd.DataFrame({"published_split": ["train"] * 100, "person": range(100)})
    assert (mufac._draw_forget_set(rows, 0.07, 0, by_row=False) == "forget").sum() == 7


def test_report_size_of_the_raw_forget_set():
    rows = pd.DataFrame({"published_split": ["train"] * 10025, "person": 0})
    split = mufac._draw_forget_set(rows, 0.02, 0, by_row=True)
    assert [(split == s).sum() for s in ("forget", "retain")] == [200, 9825]


def test_raw_set_keeps_every_row_and_counts_the_leak(tmp_path, content):
    data = prepare(tmp_path, content, raw=True, forget_fraction=0.5, seed=1)
    examples = data.examples
    assert examples["source"].tolist() == [f"{row[0]}_images/{name(row)}" for row in ROWS]
    assert examples["image_id"].is_unique
    assert (data.name, data.manifest["settings"]["forget_by"]) == ("mufac-raw", "row")
    assert data.manifest["audit"]["dropped"] == {}

    # The leak, counted from the rows alone: pictures by number, people by the identities of the clean set.
    numbers = np.array([abs(row[-1]) for row in ROWS])
    exact = np.array([row[-1] for row in ROWS])
    forget, retain = (examples["split"].to_numpy() == s for s in ("forget", "retain"))
    assert forget.sum() == 6  # round(6.5)
    people = set(examples["person_id"][forget])
    audit = data.manifest["audit"]
    assert audit["forget_pictures"] == 6
    either_form, equal_form = audit["forget_pictures_in_retain"], audit["forget_pictures_in_retain_exact"]
    assert either_form == np.isin(numbers[forget], numbers[retain]).sum()
    assert equal_form == np.isin(exact[forget], exact[retain]).sum()
    assert either_form > equal_form > 0
    assert audit["forget_people"] == len(people)
    assert audit["forget_people_in_retain"] == len(people & set(examples["person_id"][retain])) > 0


def test_clean_and_raw_name_people_and_pictures_alike(tmp_path, content):
    source = write_zip(tmp_path / "mufac.zip", content)
    clean = rows_of(dataset.load(mufac.prepare(source, tmp_path / "clean")))
    raw = rows_of(dataset.load(mufac.prepare(source, tmp_path / "raw", raw=True, forget_fraction=0.3)))
    assert clean.items() <= raw.items()


def test_an_age_that_the_name_does_not_tell_is_minus_one(tmp_path, content):
    content["train_images/someone.jpg"] = jpeg(50)
    content[TRAIN_CSV] += b"F0009,F,d,someone.jpg\n"
    assert rows_of(prepare(tmp_path, content))["someone"] == ("P0006-1", "P0006", 3, -1)


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path, content):
    for file in [f for f in content if f.endswith(".csv")]:
        content[file] = b"\xef\xbb\xbf" + content[file].replace(b"\n", b"\r\n")
    assert len(prepare(tmp_path, content).examples) == 13


def test_command_prints_the_audit(tmp_path, content, capsys):
    parser = argparse.ArgumentParser()
    mufac.add_arguments(parser)
    source = write_zip(tmp_path / "mufac.zip", content)
    out = tmp_path / "out"
    args = ["--source", str(source), "--out", str(out), "--raw", "--forget-fraction", "0.5", "--seed", "1"]
    assert mufac.run(parser.parse_args(args)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:9]] == [
        ["raw", "file", "equal", "near", "either"],
        ["rows", "21"],
        ["unique", "pictures", "17", "16"],
        ["duplicate", "groups", "4", "1", "5"],
        ["groups", "across", "families", "4", "1", "5"],
        ["groups", "across", "splits", "2", "0", "2"],
        ["label", "conflicts", "1", "0", "1"],
        ["identities", "before", "13"],
        ["identities", "after", "9", "8"],
    ]
    found = dataset.load(out).manifest["audit"]
    people, torn = found["forget_people"], found["forget_people_in_retain"]
    n, exact = found["forget_pictures_in_retain"], found["forget_pictures_in_retain_exact"]
    assert lines[-4:] == [
        f"{n} of 6 forget pictures have an equal or near copy in retain ({exact} an equal one).",
        f"{torn} of {people} forgotten people still have pictures in retain.",
        "",
        f"Prepared 21 pictures of 32 px in {out}.",
    ]


# Bad input: one sentence each, and nothing is written.


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"size": 4}, "--size must be from 8 to 1,024 pixels, found 4."),
        ({"forget_fraction": 1.0}, "--forget-fraction must lie between 0 and 1, found 1.0."),
        ({"forget_fraction": float("nan")}, "--forget-fraction must lie between 0 and 1, found nan."),
        ({"seed": -1}, "--seed must be from 0 to 4,294,967,295, found -1."),
        (
            {"forget_fraction": 0.99},
            "--forget-fraction 0.99 would forget 7 of 7 train pictures: choose one that leaves pictures to "
            "forget and pictures to retain.",
        ),
        (
            {"forget_fraction": 0.01, "raw": True},
            "--forget-fraction 0.01 would forget 0 of 13 train pictures: choose one that leaves pictures to "
            "forget and pictures to retain.",
        ),
        (
            {"size": 64},
            f"--size 64 is more than the 32 pixels of {FIRST} ({TRAIN_CSV}, line 2).",
        ),
    ],
)
def test_bad_settings(tmp_path, content, settings, sentence):
    assert error_of(tmp_path, write_zip(tmp_path / "mufac.zip", content), **settings) == sentence


def test_missing_source(tmp_path):
    assert error_of(tmp_path, tmp_path / "no.zip") == (
        f"no.zip does not exist: name the zip or its folder with --source. {AGAIN}"
    )


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_truncated_zip(tmp_path, content, kept):
    source = write_zip(tmp_path / "mufac.zip", content)
    data = source.read_bytes()
    source.write_bytes(data[: int(kept * len(data)) if kept < 1 else kept])
    assert error_of(tmp_path, source) == f"mufac.zip is not a whole zip file (File is not a zip file). {AGAIN}"


def test_damaged_zip_member(tmp_path, content):
    source = write_zip(tmp_path / "mufac.zip", content, method=zipfile.ZIP_STORED)
    data = bytearray(source.read_bytes())
    data[data.index(content[FIRST]) + 300] ^= 0xFF
    source.write_bytes(data)
    assert error_of(tmp_path, source) == (
        f"{FIRST} ({TRAIN_CSV}, line 2) cannot be unpacked from mufac.zip (Bad CRC-32 for file {FIRST!r}). {AGAIN}"
    )


def test_two_data_sets_in_one_source(tmp_path, content):
    twice = {f"{top}/{file}": data for top in ("a", "b") for file, data in content.items()}
    sentence = f"has a/{TRAIN_CSV} and b/{TRAIN_CSV}: name one data set with --source."
    assert error_of(tmp_path, write_zip(tmp_path / "mufac.zip", twice)) == f"mufac.zip {sentence}"
    assert error_of(tmp_path, write_folder(tmp_path / "both", twice)) == f"both {sentence}"


def edited(content: dict[str, bytes], line: int, old: str, new: str) -> dict[str, bytes]:
    lines = content[TRAIN_CSV].decode().splitlines(keepends=True)
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new)
    return {**content, TRAIN_CSV: "".join(lines).encode()}


BAD_ROWS = [
    (3, ",b,", ",i,", "unknown age class 'i', expected one of a to h. Correct the row or delete it."),
    (3, ",b,", ",ab,", "unknown age class 'ab', expected one of a to h. Correct the row or delete it."),
    (3, ",b,", ",,", "a value is empty. Correct the row or delete it."),
    (3, ",b,", ",", f"expected a value for each of the 4 columns, found 3. {AGAIN}"),
    (3, ",b,", ",b,b,", f"expected a value for each of the 4 columns, found 5. {AGAIN}"),
    (
        3,
        "18_b1.jpg",
        "18_b9.jpg",
        "the picture train_images/F0001_AGE_D_18_b9.jpg does not exist. Add the picture or delete the row.",
    ),
    (
        3,
        "18_b1.jpg",
        "18_a1.jpg",
        "F0001_AGE_D_18_a1.jpg is already listed in line 2. Delete one of the two rows.",
    ),
]
BAD_PATHS = [
    "../outside.jpg",
    "/etc/outside.jpg",
    "x/../../outside.jpg",
    "..\\outside.jpg",
    "C:/outside.jpg",
    "a\tb",
]
BAD_ROWS += [
    (
        3,
        "F0001_AGE_D_18_b1.jpg",
        path,
        f"the path {path!r} does not stay inside train_images. Correct the row or delete it.",
    )
    for path in BAD_PATHS
]


@pytest.mark.parametrize(("line", "old", "new", "sentence"), BAD_ROWS)
@pytest.mark.parametrize("form", ["zip", "folder"])
def test_bad_row(tmp_path, content, form, line, old, new, sentence):
    content = edited({**content, "outside.jpg": jpeg(1)}, line, old, new)
    write = write_zip if form == "zip" else write_folder
    assert error_of(tmp_path, write(tmp_path / "mufac", content)) == f"{TRAIN_CSV}, line {line}: {sentence}"


@pytest.mark.parametrize(
    ("column", "replacement", "sentence"),
    [
        ("age_class", "age", f"{TRAIN_CSV} has no column age_class. {AGAIN}"),
        ("family_id,person_id", "a,b", f"{TRAIN_CSV} has no column family_id, person_id. {AGAIN}"),
    ],
)
def test_missing_column(tmp_path, content, column, replacement, sentence):
    content = edited(content, 1, column, replacement)
    assert error_of(tmp_path, write_zip(tmp_path / "mufac.zip", content)) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", f"{TRAIN_CSV} has no column family_id, person_id, age_class, image_path. {AGAIN}"),
        (b"family_id,person_id,age_class,image_path\n", f"{TRAIN_CSV} has no rows. {AGAIN}"),
        (
            b"\xff\xfe",
            f"{TRAIN_CSV} is not readable as CSV text ('utf-8' codec can't decode byte 0xff in position 0: "
            f"invalid start byte). {AGAIN}",
        ),
        (
            b"family_id,person_id,age_class,image_path\n" + b"x" * 200_000,
            f"{TRAIN_CSV} is not readable as CSV text (field larger than field limit (131072)). {AGAIN}",
        ),
    ],
)
def test_unusable_csv(tmp_path, content, text, sentence):
    content[TRAIN_CSV] = text
    assert error_of(tmp_path, write_folder(tmp_path / "mufac", content)) == sentence


@pytest.mark.parametrize("missing", ["custom_train_dataset.csv", "custom_val_dataset.csv", "test_images"])
@pytest.mark.parametrize("form", ["zip", "folder"])
def test_missing_file_or_folder(tmp_path, content, form, missing):
    write = write_zip if form == "zip" else write_folder
    content = {file: data for file, data in content.items() if not file.startswith(missing)}
    lacking = {
        "custom_train_dataset.csv": "custom_train_dataset.csv, neither at its top nor one folder down",
        "custom_val_dataset.csv": "custom_val_dataset.csv",
        "test_images": "folder test_images with pictures",
    }[missing]
    assert error_of(tmp_path, write(tmp_path / "mufac", content)) == f"mufac has no {lacking}. {AGAIN}"


@pytest.mark.parametrize(
    "data", [b"", b"not a picture", jpeg(2)[:-400], jpeg(2)[:20]], ids=["empty", "text", "cut", "header"]
)
@pytest.mark.parametrize("form", ["zip", "folder"])
def test_truncated_picture(tmp_path, content, form, data):
    content["val_images/F0801_AGE_S_9_b2.jpg"] = data
    write = write_zip if form == "zip" else write_folder
    message = error_of(tmp_path, write(tmp_path / "mufac", content))
    start = "val_images/F0801_AGE_S_9_b2.jpg (custom_val_dataset.csv, line 3) is not a whole JPEG picture ("
    assert message.startswith(start)
    assert message.endswith("). Replace the picture or delete the row.")


def test_picture_of_another_format(tmp_path, content):
    file = io.BytesIO()
    Image.fromarray(pixels(2)).save(file, "PNG")
    content[FIRST] = file.getvalue()
    message = error_of(tmp_path, write_zip(tmp_path / "mufac.zip", content))
    assert message.startswith(f"{FIRST} ({TRAIN_CSV}, line 2) is not a whole JPEG picture (")


@pytest.mark.parametrize("side", [1025, 12_000, 60_000])
def test_picture_that_would_fill_the_memory(tmp_path, content, side):
    data = bytearray(jpeg(1))
    start = data.index(b"\xff\xc0") + 5  # height and width in the frame header
    data[start : start + 4] = struct.pack(">HH", side, side)
    content[FIRST] = bytes(data)
    message = error_of(tmp_path, write_zip(tmp_path / "mufac.zip", content))
    assert message.startswith(f"{FIRST} ({TRAIN_CSV}, line 2) ")
    assert message.endswith("Replace the picture or delete the row.")
    assert f"has {side} x {side} pixels" in message or "decompression bomb" in message


def test_member_that_would_fill_the_memory(tmp_path, content):
    content[FIRST] = bytes(5 << 20)  # 5 kB in the zip
    message = f"{FIRST} ({TRAIN_CSV}, line 2) holds 5,242,880 bytes, more than the 4,194,304 allowed. {AGAIN}"
    assert error_of(tmp_path, write_zip(tmp_path / "mufac.zip", content)) == message
    assert error_of(tmp_path, write_folder(tmp_path / "mufac", content)) == message


def test_member_that_lies_about_its_size(tmp_path, content):
    content[FIRST] = bytes(5 << 20)
    source = write_zip(tmp_path / "mufac.zip", content)
    data = source.read_bytes()
    assert data.count(struct.pack("<I", 5 << 20)) == 2  # in the member's header and in the directory
    source.write_bytes(data.replace(struct.pack("<I", 5 << 20), struct.pack("<I", 1000)))
    assert error_of(tmp_path, source) == (
        f"{FIRST} ({TRAIN_CSV}, line 2) cannot be unpacked from mufac.zip (Bad CRC-32 for file {FIRST!r}). {AGAIN}"
    )


def test_packing_without_a_bound_on_memory_is_refused(tmp_path, content):
    source = write_zip(tmp_path / "mufac.zip", content, method=zipfile.ZIP_BZIP2)
    assert error_of(tmp_path, source) == f"{TRAIN_CSV} is packed with a method other than deflate. {AGAIN}"


def test_link_out_of_the_folder(tmp_path, content):
    (tmp_path / "secret.jpg").write_bytes(content[FIRST])
    source = write_folder(tmp_path / "mufac", content)
    (source / FIRST).unlink()
    (source / FIRST).symlink_to(tmp_path / "secret.jpg")
    assert error_of(tmp_path, source) == (
        f"{FIRST} ({TRAIN_CSV}, line 2) is a link to a place outside mufac. Replace it by the file."
    )


def test_out_that_holds_another_data_set(tmp_path, content):
    source = write_zip(tmp_path / "mufac.zip", content)
    out = mufac.prepare(source, tmp_path / "out")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert mufac.prepare(source, out) == out  # the same one is no mistake
    with pytest.raises(ValueError, match=r"out already holds another data set\. Name another folder with --out"):
        mufac.prepare(source, out, size=16)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mufac.zip", "out"]


def test_interrupted_write_leaves_nothing(tmp_path, content, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "sha256_of", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, content)
    assert [p.name for p in tmp_path.iterdir()] == ["mufac.zip"]


@pytest.mark.mufac
@pytest.mark.skipif(not REAL.is_file(), reason=f"MUFAC is not at {REAL}; get it from {PUBLISHED_AT}")
def test_published_file(tmp_path):
    data = dataset.load(mufac.prepare(REAL, tmp_path / "out", size=8))
    audit = data.manifest["audit"]
    assert (audit["rows"], audit["unique_pictures_exact"], audit["unique_pictures"]) == (13068, 9119, 8890)
    assert (audit["duplicate_groups_exact"], audit["duplicate_groups_near"]) == (3144, 229)
    assert (audit["groups_across_splits"], audit["label_conflicts"]) == (43, 2)
    assert (audit["identities_before"], audit["identities_after"]) == (1216, 820)
    assert audit["dropped"] == {
        "picture with different labels": 7,
        "person kept in a smaller split": 70,
        "repeated picture": 4103,
    }
    people = data.examples.set_index(data.examples["source"].str.extract(r"(F\d+_AGE_[^_]+)_")[0])["person_id"]
    assert people["F0001_AGE_D"].nunique() == 1
    n_forget = sum(data.manifest["counts"]["forget"])
    n_train = n_forget + sum(data.manifest["counts"]["retain"])
    assert 0.02 * n_train <= n_forget < 0.03 * n_train
    assert verify.problems(data.folder) == []
