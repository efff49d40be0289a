import functools
import re

import pytest

from local_scorer.execution import contract
from local_scorer.execution.contract import EntryError

ENTRY = "def unlearning(net, retain_loader, forget_loader, val_loader):\n    net.append(retain_loader)\n"


@pytest.fixture
def entry(tmp_path):
    """Return a function that writes an entry file."""

    def write(source, name="mine.py"):
        path = tmp_path / name
        path.write_text(source)
        return path

    return write


def test_name_is_the_file_name():
    assert contract.entry_name("somewhere/fine.tune.py") == "fine.tune"


def test_source_is_read_without_running_it(entry):
    source = "raise SystemExit('this was run')\n"
    assert contract.read_source(entry(source)) == source


def test_hash_of_a_known_text():
    # sha256sum of the three letters abc, from FIPS 180-2
    assert contract.source_hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert contract.source_hash("abd") != contract.source_hash("abc")


def test_missing_file(tmp_path):
    path = tmp_path / "no.py"
    with pytest.raises(EntryError, match=f"^There is no entry file {re.escape(str(path))}.$"):
        contract.read_source(path)


def test_folder_is_no_entry(tmp_path):
    with pytest.raises(EntryError, match=r" is a folder: an entry is one file named \*\.py\.$"):
        contract.read_source(tmp_path)


def test_other_suffix(entry):
    with pytest.raises(EntryError, match=r"mine.ipynb is not a Python file: an entry is one file named \*.py.$"):
        contract.read_source(entry(ENTRY, "mine.ipynb"))


def test_other_encoding(tmp_path):
    path = tmp_path / "mine.py"
    path.write_bytes("# Größe".encode("latin-1"))
    with pytest.raises(EntryError, match=r"mine.py is not UTF-8 text \("):
        contract.read_source(path)


def test_loaded_function_works_in_place(entry):
    net = []
    contract.load_entry(entry(ENTRY))(net, "retain", "forget", "validation")
    assert net == ["retain"]


def test_entries_do_not_share_names(entry):
    first = contract.load_entry(entry("LR = 1\n" + ENTRY.replace("retain_loader)", "LR)"), "first.py"))
    second = contract.load_entry(entry("LR = 2\n" + ENTRY.replace("retain_loader)", "LR)"), "second.py"))
    net = []
    first(net, None, None, None)
    second(net, None, None, None)
    assert net == [1, 2]


def test_entry_may_define_dataclasses(entry):
    source = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    source += "@dataclass\nclass Settings:\n    lr: float = 0.5\n"
    net = []
    contract.load_entry(entry(source + ENTRY.replace("retain_loader)", "Settings().lr)")))(net, None, None, None)
    assert net == [0.5]


@pytest.mark.parametrize("source", ["x = 1\n", "unlearning = 3\n"])
def test_no_function(entry, source):
    with pytest.raises(EntryError) as error:
        contract.load_entry(entry(source))
    expected = "The file defines no function unlearning(net, retain_loader, forget_loader, val_loader)."
    assert str(error.value) == expected


def test_wrong_signature(entry):
    with pytest.raises(EntryError) as error:
        contract.load_entry(entry("def unlearning(net, loader):\n    pass\n"))
    assert str(error.value) == (
        "Wrong signature unlearning(net, loader): it must be callable as "
        "unlearning(net, retain_loader, forget_loader, val_loader) (too many positional arguments)."
    )


def test_own_errors_of_an_entry_pass_through(entry):
    with pytest.raises(ZeroDivisionError):
        contract.load_entry(entry("1 / 0\n"))


@pytest.mark.parametrize(
    "function",
    [
        lambda net, retain_loader, forget_loader, val_loader: None,
        lambda model, retain, forget, validation: None,
        lambda net, retain, forget, validation, epochs=3: None,
        lambda net, *loaders: None,
        functools.partial(lambda net, retain, forget, validation, lr: None, lr=1),
    ],
)
def test_signatures_that_fit(function):
    assert contract.check_signature(function) is None  # a signature that does not fit raises


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        lambda net, retain, forget: None,
        lambda net, retain, forget, validation, epochs: None,
        lambda net, retain, forget, *, validation: None,
        lambda net, retain, forget, validation, *, epochs: None,
    ],
)
def test_signatures_that_do_not_fit(function):
    with pytest.raises(EntryError, match=r"^Wrong signature unlearning\("):
        contract.check_signature(function)
