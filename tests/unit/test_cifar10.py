"""The cifar10 command, on made-up files of a few pictures."""

import hashlib

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from data_prep import dataset, verify
from data_prep.cli import main
from data_prep.sources import cifar10

PER_FILE = 20
FILES = [*cifar10.TRAIN_FILES, cifar10.TEST_FILE]


@pytest.fixture
def batches(monkeypatch):
    """Six files of 20 pictures: labels ``[6, 20]`` and pixels ``[6, 20, 3072]``."""
    monkeypatch.setattr(cifar10, "PICTURES_PER_FILE", PER_FILE)
    random = np.random.default_rng(0)
    return random.integers(10, size=(6, PER_FILE)), random.integers(256, size=(6, PER_FILE, 3072))


@pytest.fixture
def binary(tmp_path, batches):
    folder = tmp_path / "source" / cifar10.BINARY_FOLDER
    folder.mkdir(parents=True)
    for name, labels, pixels in zip(FILES, *batches, strict=True):
        records = np.concatenate([labels[:, None], pixels], axis=1)
        (folder / f"{name}.bin").write_bytes(records.astype(np.uint8).tobytes())
    return folder.parent


def protocol_0(labels, pixels):
    """Write the published files' dict of lists in pickle's text form, by hand."""
    rows = "".join("(" + "".join(f"I{value}\n" for value in row) + "la" for row in pixels)
    marks = "".join(f"I{label}\na" for label in labels)
    return f"(dS'data'\n(l{rows}sS'labels'\n(l{marks}s.".encode()


@pytest.fixture
def python(tmp_path, batches, monkeypatch):
    folder = tmp_path / "source" / cifar10.PYTHON_FOLDER
    folder.mkdir(parents=True)
    for name, labels, pixels in zip(FILES, *batches, strict=True):
        (folder / name).write_bytes(protocol_0(labels, pixels))
    (folder / "batches.meta").write_bytes(b"(dS'label_names'\n(ls.")
    sums = [[name, hashlib.md5((folder / name).read_bytes()).hexdigest()] for name in FILES]
    meta_sum = hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta_sum})
    return folder.parent


def test_pictures_and_labels_come_out_as_they_went_in(binary, batches, tmp_path):
    data = dataset.load(cifar10.prepare(binary, tmp_path / "out"))
    labels, pixels = batches
    assert np.array_equal(data.images, pixels.reshape(-1, 3, 32, 32))
    assert np.array_equal(data.examples["age_group"], labels.ravel())
    assert data.examples["source"][23] == "data_batch_2.bin:3"
    assert data.examples["image_id"][100] == "test-00000"
    assert (data.examples["age"] == -1).all()
    assert data.class_names[3] == "cat"


def test_a_tenth_of_train_is_forgotten_and_the_test_pictures_are_halved(binary, tmp_path):
    data = dataset.load(cifar10.prepare(binary, tmp_path / "out"))
    assert {split: len(data.rows(split)) for split in dataset.SPLITS} == {
        "retain": 90,
        "forget": 10,
        "validation": 10,
        "test": 10,
    }
    assert data.rows("forget").max() < 100 <= data.rows("validation").min()
    assert data.manifest["settings"]["forget_by"] == "row"
    assert data.examples["person_id"].is_unique
    assert verify.problems(data.folder) == []


def test_the_seed_draws_the_forget_set(binary, tmp_path):
    first, again, other = (
        dataset.load(cifar10.prepare(binary, tmp_path / name, seed=seed))
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first.fingerprint == again.fingerprint
    assert not np.array_equal(first.rows("forget"), other.rows("forget"))
    assert not np.array_equal(first.rows("test"), other.rows("test"))


def test_the_python_version_gives_the_same_data(binary, python, tmp_path):
    from_binary = dataset.load(cifar10.prepare(binary / cifar10.BINARY_FOLDER, tmp_path / "binary"))
    from_python = dataset.load(cifar10.prepare(python / cifar10.PYTHON_FOLDER, tmp_path / "python"))
    assert from_python.manifest["sources"].keys() == set(FILES)
    assert np.array_equal(from_python.images, from_binary.images)
    columns = ["image_id", "age_group", "split"]
    assert from_python.examples[columns].equals(from_binary.examples[columns])


def test_a_python_file_that_is_not_the_published_one_is_never_opened(python, tmp_path, capsys):
    trap, marker = python / cifar10.PYTHON_FOLDER / "data_batch_4", tmp_path / "opened"
    trap.write_bytes(f"cos\nmkdir\n(S'{marker}'\ntR.".encode())  # unpickling it makes a folder
    assert main(["cifar10", "--source", str(python), "--out", str(tmp_path / "out")]) == 1
    expected = f"error: {trap} is not the published file: its MD5 sum differs. {cifar10._GET_AGAIN}\n"
    assert capsys.readouterr().err == expected
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_a_truncated_file_is_named(binary, tmp_path):
    file = binary / cifar10.BINARY_FOLDER / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-3073])  # a whole record less
    with pytest.raises(ValueError) as error:
        cifar10.prepare(binary, tmp_path / "out")
    assert str(error.value) == f"{file} has 58,387 bytes, expected 61,460. {cifar10._GET_AGAIN}"


def test_an_unknown_label_is_named_with_its_picture(binary, tmp_path):
    file = binary / cifar10.BINARY_FOLDER / "test_batch.bin"
    content = bytearray(file.read_bytes())
    content[7 * 3073] = 10
    file.write_bytes(content)
    with pytest.raises(ValueError) as error:
        cifar10.prepare(binary, tmp_path / "out")
    assert str(error.value) == f"{file}, picture 7: label 10, expected 0 to 9. {cifar10._GET_AGAIN}"


@pytest.mark.parametrize("name", ["data_batch_2", "batches.meta"])
def test_a_missing_file_is_named(python, tmp_path, name):
    file = python / cifar10.PYTHON_FOLDER / name
    file.unlink()
    with pytest.raises(ValueError) as error:
        cifar10.prepare(python, tmp_path / "out")
    assert str(error.value) == f"{file} is missing. {cifar10._GET_AGAIN}"


def test_a_folder_without_cifar10_is_named(tmp_path):
    with pytest.raises(ValueError) as error:
        cifar10.prepare(tmp_path, tmp_path / "out")
    assert str(error.value) == (
        f"{tmp_path} holds neither cifar-10-batches-bin nor cifar-10-batches-py. Name the folder that "
        f"does with --source, or download it: python -c "
        f"\"import torchvision; torchvision.datasets.CIFAR10('{tmp_path}', download=True)\""
    )


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"forget_fraction": 0}, "--forget-fraction must lie between 0 and 1, found 0."),
        ({"forget_fraction": 1.0}, "--forget-fraction must lie between 0 and 1, found 1.0."),
        ({"seed": -1}, "--seed must be from 0 to 4,294,967,295, found -1."),
    ],
)
def test_settings_out_of_range_are_named(binary, tmp_path, setting, sentence):
    with pytest.raises(ValueError) as error:
        cifar10.prepare(binary, tmp_path / "out", **setting)
    assert str(error.value) == sentence
