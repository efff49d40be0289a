"""Option values that cannot be used: one sentence, exit code 2, at once, and nothing is written."""

import doctest

import pytest

from data_prep import options
from data_prep.cli import main

SEED = "--seed must be from 0 to 4,294,967,295, found"
SHARE = "--forget-fraction must lie between 0 and 1, found"
WRONG = [
    ("synthetic --people 9", "--people must be from 10 to 100,000, found 9."),
    ("synthetic --people 1000000000", "--people must be from 10 to 100,000, found 1000000000."),
    ("synthetic --size 100000", "--size must be from 16 to 1,024 pixels, found 100000."),
    ("synthetic --size -1", "--size must be from 16 to 1,024 pixels, found -1."),
    ("synthetic --seed -1", f"{SEED} -1."),
    ("synthetic --seed 99999999999", f"{SEED} 99999999999."),
    ("mufac --source none --size 100000", "--size must be from 8 to 1,024 pixels, found 100000."),
    ("mufac --source none --forget-fraction nan", f"{SHARE} nan."),
    ("mufac --source none --forget-fraction inf", f"{SHARE} inf."),
    ("mufac --source none --seed -1", f"{SEED} -1."),
    ("cifar10 --source none --forget-fraction nan", f"{SHARE} nan."),
    ("cifar10 --source none --forget-fraction -1", f"{SHARE} -1.0."),
    ("cifar10 --source none --seed -1", f"{SEED} -1."),
    ("surf --source none --size 100000", "--size must be from 8 to 1,024 pixels, found 100000."),
    ("kaggle --source tests --classes 1", "--classes must be from 2 to 1,000, found 1."),
    ("kaggle --source tests --classes 100000", "--classes must be from 2 to 1,000, found 100000."),
]


def test_doctests():
    assert doctest.testmod(options).attempted == 1
    assert doctest.testmod(options).failed == 0


@pytest.mark.parametrize(("command", "sentence"), WRONG)
def test_an_unusable_value(tmp_path, capsys, command, sentence):
    assert main([*command.split(), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_would_fill_the_memory(tmp_path, capsys):
    command = ["synthetic", "--people", "20000", "--size", "1024", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "pictures of 1024 px need " in error and error.endswith(
        "a data set may have 4. Choose a smaller --size.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    ["synthetic", "mufac --source none", "cifar10 --source none", "surf --source none", "kaggle --source tests"],
)
def test_a_folder_that_is_taken_is_refused_before_the_work(tmp_path, capsys, command):
    (tmp_path / "thesis.txt").write_text("years of work")
    another = "name a folder that does not exist yet with --out"
    assert main([*command.split(), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} already holds other files; {another}.\n"
    assert main([*command.split(), "--out", str(tmp_path / "thesis.txt" / "out")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'thesis.txt'} is a file; {another}.\n"
