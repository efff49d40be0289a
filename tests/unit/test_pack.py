"""Reference packs: written and read again, and refused where they are damaged, changed or hostile."""

import io
import json
import re
import shutil
import zipfile

import numpy as np
import pytest

from local_scorer.runs import pack
from local_scorer.runs.pack import Header, Pack

PARAMETERS = (("conv1.weight", (2, 3)), ("fc.bias", (4,)))


def arrays(random):
    found = {
        "weights": random.normal(size=(2, 10)).astype(np.float16),
        "images": np.zeros((0, 3, 8, 8), np.uint8),
    }
    for split, n in zip(pack.SPLITS, (6, 4, 5, 5), strict=True):
        found[f"{split}_labels"] = np.arange(n) % 2
    for kind in pack.KINDS:
        n_models = 2 if kind == "original" else 3
        found[f"{kind}_forget_logits"] = random.normal(size=(n_models, 4, 2)).astype(np.float32)
    return found


def header(**changes):
    values = {
        "data": "drawn",
        "fingerprint": "f" * 64,
        "images_sha256": "a" * 64,
        "class_names": ("young", "old"),
        "recipe": {"name": "quick"},
        "width": 16,
        "seed": 0,
        "n_models": 3,
        "n_originals": 2,
        "parameters": PARAMETERS,
        "environment": {"processor": "one"},
        "command": "python -m local_scorer reference make",
        "date": "2026-01-01",
        "arrays": {},
    }
    return Header(**(values | changes))


@pytest.fixture
def written(tmp_path):
    content = arrays(np.random.default_rng(0))
    return pack.write(tmp_path / "reference.npz", header(), content), content


def rewritten(path, **members):
    """Replace parts of a pack by other bytes, as a stranger could; None takes a part out."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts |= members
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            if content is not None:
                archive.writestr(name, content)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_reads_what_was_written(written):
    path, content = written
    opened = Pack(path)
    assert opened.header.parameters == PARAMETERS
    assert opened.header.class_names == ("young", "old")
    for name, array in content.items():
        assert np.array_equal(opened.array(name), array)
        assert opened.array(name).dtype == array.dtype


def test_weights_have_their_names_and_shapes(written):
    path, content = written
    state = Pack(path).weights(1)
    assert {name: array.shape for name, array in state.items()} == dict(PARAMETERS)
    assert np.array_equal(np.concatenate([array.ravel() for array in state.values()]), content["weights"][1])


def test_an_original_that_is_not_there(written):
    with pytest.raises(ValueError, match="weights of 2 originals: there is no number 2"):
        Pack(written[0]).weights(2)


def test_writing_twice_gives_the_same_hashes(written, tmp_path):
    again = pack.write(tmp_path / "again.npz", header(), written[1])
    assert Pack(again).header.arrays == Pack(written[0]).header.arrays


def test_a_changed_array_is_found_by_its_hash(written):
    path, content = written
    changed = content["retrained_forget_logits"].copy()
    changed[0, 0, 0] += 1
    rewritten(path, **{"retrained_forget_logits.npy": npy(changed)})
    with pytest.raises(ValueError, match="is not what its hash says"):
        Pack(path).array("retrained_forget_logits")


@pytest.mark.parametrize(
    "members",
    [
        {"header.npy": None},
        {"weights.npy": None},
        {"surprise.npy": npy(np.zeros(3))},
        {"header.npy": npy(np.array("{"))},
        {"header.npy": npy(np.array(json.dumps({"schema": 99})))},
        {"header.npy": npy(np.array("[]"))},
        {"header.npy": b"\x93NUMPY"},
        {"header.npy": b""},
    ],
)
def test_a_damaged_pack_is_refused_on_opening(written, members):
    rewritten(written[0], **members)
    with pytest.raises(ValueError, match=r"reference\.npz"):
        Pack(written[0])


def test_no_pickle_is_loaded(written):
    rewritten(written[0], **{"weights.npy": _pickled()})
    with pytest.raises(ValueError, match="damaged"):
        Pack(written[0]).array("weights")


def _pickled():
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def test_an_array_that_claims_more_than_it_holds_is_not_allocated(written):
    buffer = io.BytesIO()
    claim = {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(buffer, claim)
    rewritten(written[0], **{"weights.npy": buffer.getvalue() + b"\0" * 64})
    with pytest.raises(ValueError, match="claims the shape"):
        Pack(written[0]).array("weights")


@pytest.mark.parametrize(
    "changes",
    [
        {"data": 3},
        {"width": "16"},
        {"n_models": 2},
        {"n_originals": True},
        {"recipe": []},
        {"class_names": ("one",)},
        {"parameters": (("a", (-1,)),)},
    ],
)
def test_a_header_of_wrong_types_is_refused(changes):
    with pytest.raises(ValueError, match="its "):
        header(**changes)


def test_no_pack_and_no_zip(tmp_path):
    with pytest.raises(ValueError, match="There is no reference pack"):
        Pack(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(ValueError, match="cannot be read as a reference pack"):
        Pack(tmp_path / "text.npz")


def test_every_cut_is_refused(written, tmp_path):
    content = written[0].read_bytes()
    for length in range(0, len(content), 97):
        cut = tmp_path / "cut.npz"
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.npz"):
            Pack(cut)
    shutil.copy(written[0], cut)
    assert Pack(cut).header.n_models == 3


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        ("retrained_retain_accuracy", np.array(["0.9"] * 3), "holds <U3, expected float64"),
        ("retrained_retain_accuracy", np.ones(2), "it is of 2 models, the header says 3"),
        ("original_cpu_seconds", np.ones(3), "it is of 3 models, the header says 2"),
        ("ceiling_forget_logits", np.ones((3, 4, 3), np.float32), "it is of 3 classes, the header names 2"),
        ("ceiling_test_logits", np.ones((3, 4), np.float16), "has 2 axes, expected 3"),
    ],
)
def test_arrays_of_another_form_are_refused(written, tmp_path, name, array, sentence):
    path = pack.write(tmp_path / "other.npz", header(), written[1] | {name: array})
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Pack(path).array(name)


def test_all_arrays_together_have_a_bound(written, monkeypatch):
    monkeypatch.setattr(pack, "LARGEST", 100)
    with pytest.raises(ValueError, match=r"would unpack to [0-9,]+ bytes, more than the 100 allowed"):
        Pack(written[0])
