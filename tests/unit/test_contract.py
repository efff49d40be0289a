import doctest
import functools
import hashlib
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


def test_doctests():
    assert doctest.testmod(contract) == (0, 2)


def test_name_is_the_file_name():
    assert contract.entry_name("somewhere/fine.tune.py") == "fine.tune"


def test_source_is_read_without_running_it(entry):
    source = "raise SystemExit('this was run')\n"
    assert contract.read_source(entry(source)) == source


CODE = "x = '1'\ndef f():\n    'Return.'\n    return x\n"


def test_hash_of_a_file_that_does_not_parse_is_that_of_its_text():
    # printf 'a b' | sha256sum
    assert contract.source_hash("a b") == "c8687a08aa5d6ed2044328fa6a697ab8e96dc34291e8c2034ae8c38e6fcc6d65"
    assert contract.source_hash("a b") != contract.source_hash("a  b")
    assert contract.source_hash("x = 1\0") != contract.source_hash("x = 1")


def test_hash_of_a_known_tree():
    """No field that is empty counts, so that another version of Python gives the same."""
    tree = (
        "Module(body=[FunctionDef(name='f', args=arguments(args=[arg(arg='a')]), "
        "body=[Return(value=Name(id='a', ctx=Load()))])])"
    )
    assert contract.source_hash("def f(a): return a") == hashlib.sha256(tree.encode()).hexdigest()


@pytest.mark.parametrize(
    "same",
    [
        '"""What it does.\n\nResults: none.\n"""\nx = "1"\ndef f():\n    """Return."""\n    return x\n',
        "x = '1'  # a reason\n\n\ndef f():\n    '''Return.'''\n\n    return x",
        "x = (\n    '1'\n)\ndef f():\n    'Return.'\n    return (x)",
    ],
)
def test_hash_leaves_out_what_a_file_says_about_itself(same):
    assert contract.source_hash(same) == contract.source_hash(CODE)


@pytest.mark.parametrize(
    "other",
    [
        "x = 1\ndef f():\n    'Return.'\n    return x\n",
        "x = '1'\ndef f():\n    'Give.'\n    return x\n",
        "x = '1'\ndef f():\n    return x\n",
        "def f():\n    'Return.'\n    return x\nx = '1'\n",
        "x = '1'\nx\ndef f():\n    'Return.'\n    return x\n",
    ],
)
def test_hash_changes_with_the_code(other):
    assert contract.source_hash(other) != contract.source_hash(CODE)


def test_hash_tells_constants_of_other_types_apart():
    assert len({contract.source_hash(f"x = {value}") for value in ("0", "0.0", "False", "None", "''", "b''")}) == 6


def test_hash_does_not_warn_of_what_the_code_has(recwarn):
    contract.source_hash("x = '\\d'")
    assert not recwarn


def test_missing_file(tmp_path):
    path = tmp_path / "no.py"
    with pytest.raises(EntryError, match=f"^There is no entry file {re.escape(str(path))}.$"):
        contract.read_source(path)


def test_folder_is_no_entry(tmp_path):
    with pytest.raises(EntryError, match=r" is a folder: an entry is one file named \*\.py or \*\.ipynb\.$"):
        contract.read_source(tmp_path)


def test_other_suffix(entry):
    with pytest.raises(EntryError, match=r"mine.txt is not a Python file: an entry is one file named "):
        contract.read_source(entry(ENTRY, "mine.txt"))


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


def test_the_docstring_is_not_in_the_hash_and_cannot_decide_anything(tmp_path):
    """Two files that differ only there have one hash, so they must do the same."""
    code = "rate = __doc__\n\ndef unlearning(net, retain_loader, forget_loader, val_loader):\n    return rate\n"
    path = tmp_path / "entry.py"
    path.write_text(f'"""0.1"""\n{code}')
    assert contract.source_hash(path.read_text()) == contract.source_hash(code)
    assert contract.load_entry(path)(None, None, None, None) is None


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("KeyError: 0", True),
        ("ValueError: too many values to unpack (expected 2)", True),
        ("TypeError: string indices must be integers, not 'tuple'", True),
        ("TypeError: linear(): argument 'input' (position 1) must be Tensor, not str", True),
        ("AttributeError: 'dict' object has no attribute 'to'", True),
        ("AttributeError: 'NoneType' object has no attribute 'zero_'", False),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'dict'", False),
        ("RuntimeError: expected scalar type Float but found Long", False),
    ],
)
def test_errors_about_the_form_of_batches_are_known(reason, expected):
    assert contract.is_about_batches(reason) == expected
