import dataclasses
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from local_scorer.execution.job import Job
from local_scorer.models.recipes import RECIPES
from local_scorer.runs import store
from local_scorer.runs.store import ACCURACIES, LOGITS, Failure, JobResult, RunFolder
from tests.helpers.runs import HEADER

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def some_result(**changes):
    return JobResult(
        header=dataclasses.replace(HEADER, index=3),
        logits={split: np.arange(6, dtype=np.float32).reshape(3, 2) + n for n, split in enumerate(LOGITS)},
        labels={split: np.array([0, 1, n % 2]) for n, split in enumerate(LOGITS)},
        accuracy={split: n / 4 for n, split in enumerate(ACCURACIES)},
        wall_seconds=1.5,
        cpu_seconds=2.5,
        **changes,
    )


def python(script, *arguments):
    """Start a script in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def files_in(path):
    return sorted(file.name for file in path.iterdir())


def test_result_comes_back_as_it_was(folder):
    result = some_result()
    path = folder.save_result("k", result)
    assert path == folder.result_path("k") == folder.root / "jobs" / "k.npz"
    found = folder.load_result("k")
    assert found.header == folder.load_header("k") == result.header
    for split in LOGITS:
        np.testing.assert_array_equal(found.logits[split], result.logits[split])
        assert found.logits[split].dtype == np.float32
        np.testing.assert_array_equal(found.labels[split], result.labels[split])
        assert found.labels[split].dtype == np.int64
    assert found.accuracy == {"retain": 0.0, "forget": 0.25, "validation": 0.5, "test": 0.75}
    assert (found.wall_seconds, found.cpu_seconds) == (1.5, 2.5)


def test_result_of_an_empty_split(folder):
    result = some_result()
    result.logits["validation"] = np.empty((0, 2), np.float32)
    result.labels["validation"] = np.empty(0, np.int64)
    result.accuracy["validation"] = float("nan")
    folder.save_result("k", result)
    found = folder.load_result("k")
    assert found.logits["validation"].shape == (0, 2)
    assert np.isnan(found.accuracy["validation"])


def test_missing_result(folder):
    assert not folder.is_done("k")
    with pytest.raises(FileNotFoundError):
        folder.load_result("k")


def test_original_is_done_only_with_its_weights(folder):
    result = some_result()
    header = dataclasses.replace(result.header, weights_sha256=hashlib.sha256(b"weights").hexdigest())
    folder.save_result("k", dataclasses.replace(result, header=header))
    assert folder.is_done("k")
    assert not folder.is_done("k", needs_weights=True)
    store.write_atomically(folder.weights_path("k"), b"weights")
    assert folder.is_done("k", needs_weights=True)
    store.write_atomically(folder.weights_path("k"), b"weigh")
    assert not folder.is_done("k", needs_weights=True)


def test_writing_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "file"
    store.write_atomically(path, b"first")
    store.write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert files_in(path.parent) == ["file"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch, step, error):
    path = tmp_path / "file"
    store.write_atomically(path, b"old")

    def fail(*_):
        raise error

    monkeypatch.setattr(os, "fsync", fail) if step == "fsync" else monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(type(error)):
        store.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert files_in(tmp_path) == ["file"]


def test_killed_while_writing(folder):
    """Power fails after the last byte and before the rename: the job is not done, its old state stands."""
    store.write_atomically(folder.result_path("k"), b"old")
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from local_scorer.runs import store\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.write_atomically(Path(sys.argv[1]), b'new')\n"
    )
    process = python(script, folder.result_path("k"))
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert folder.result_path("k").read_bytes() == b"old"
    assert [path.name for path in folder.result_path("k").parent.glob("*.npz")] == ["k.npz"]


def rezipped(content, change):
    """Return an npz with the bytes of its members changed by `change(name, content)`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            changed = change(name, old.read(name))
            if changed is not None:
                new.writestr(name, changed)
    return buffer.getvalue()


def saved(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


DAMAGE = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[:-100],
    "text": lambda content: b"not an archive",
    "one array": lambda content: saved(np.arange(3)),
    "lost member": lambda content: rezipped(content, lambda name, data: None if "test_logits" in name else data),
    "lost bytes": lambda content: rezipped(content, lambda name, data: data[:-1]),
    "header is no JSON": lambda content: rezipped(
        content, lambda name, data: saved(np.array("{")) if name == "header.npy" else data
    ),
    "header is a list": lambda content: rezipped(
        content, lambda name, data: saved(np.array("[]")) if name == "header.npy" else data
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_result_is_named_and_moved_aside(folder, damage):
    path = folder.save_result("k", some_result())
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(ValueError) as error:
        folder.load_result("k")
    assert str(error.value).startswith(f"{path} is damaged (")
    assert str(error.value).endswith("). Delete it and run the same command again: only this job is redone.")
    assert not folder.is_done("k")
    assert files_in(path.parent) == ["k.damaged"]


def test_every_changed_byte_is_noticed_or_harmless(folder):
    path = folder.save_result("k", some_result())
    content = path.read_bytes()
    intact = folder.load_result("k")
    noticed = 0
    for place in range(0, len(content), 11):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            found = folder.load_result("k")
        except ValueError:
            noticed += 1
        else:
            assert found.header == intact.header
            assert found.accuracy == intact.accuracy
            for split in LOGITS:
                np.testing.assert_array_equal(found.logits[split], intact.logits[split])
                np.testing.assert_array_equal(found.labels[split], intact.labels[split])
    assert noticed > len(content) / 11 / 2


def in_place_of(path, name, data):
    path.write_bytes(rezipped(path.read_bytes(), lambda other, old: data if other == f"{name}.npy" else old))


def claims(shape, dtype="<f4"):
    """Return the bytes of an array that says it has this shape and holds nothing."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("forget_logits", saved(np.zeros(3, np.float32)), "forget_logits has 1 axes, expected 2"),
        ("forget_logits", saved(np.zeros((3, 2))), "forget_logits holds float64, expected float32"),
        ("forget_logits", saved(np.array([["a", "b"]] * 3)), "forget_logits holds <U1, expected float32"),
        ("forget_logits", saved(np.zeros((4, 2), np.float32)), "forget has 4 rows of logits and 3 labels"),
        ("forget_logits", claims((10**12, 2)), r"forget_logits claims the shape \(1000000000000, 2\) of float32"),
        ("forget_labels", saved(np.array([0, 1, 2])), "a label of forget is not one of 2 classes"),
        ("test_labels", saved(np.array([0, -1, 1])), "a label of test is not one of 2 classes"),
        ("test_accuracy", saved(np.float64(7)), "the accuracy on test is 7.0"),
        ("test_accuracy", saved(np.zeros(3)), "test_accuracy has 1 axes, expected 0"),
        ("wall_seconds", saved(np.float64(-1)), "it took -1.0 seconds"),
        ("cpu_seconds", saved(np.float64("inf")), "it took inf seconds"),
        ("retain_confidence", saved(np.zeros((3, 2), np.float32)), "retain_confidence has 2 axes, expected 1"),
    ],
)
def test_parts_of_another_form_are_named(folder, name, data, what):
    in_place_of(folder.save_result("k", some_result()), name, data)
    with pytest.raises(ValueError, match=rf"k.npz is damaged \({what}.*\). Delete it and run the same command"):
        folder.load_result("k")


def test_a_result_that_would_fill_the_memory_is_not_unpacked(folder, monkeypatch):
    path = folder.save_result("k", some_result())
    zeros = np.zeros((100_000, 2), np.float32)
    np.savez_compressed(path, **{**np.load(path), "forget_logits": zeros})
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(store, "MOST_BYTES", 500_000)
    for read in (folder.load_result, folder.load_header):
        with pytest.raises(ValueError, match=r"would unpack to 8\d\d,\d\d\d bytes, more than the 500,000 allowed"):
            read("k")


def test_a_folder_in_place_of_a_result_is_damage(folder):
    path = folder.save_result("k", some_result())
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"k.npz is damaged \("):
        folder.load_result("k")


def test_result_of_another_job_is_refused(folder):
    folder.save_result("k", some_result()).rename(folder.result_path("other"))
    with pytest.raises(ValueError, match=r"other.npz is damaged \(it belongs to another job\)"):
        folder.load_result("other")


class Trap:
    """Opens a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickle_in_a_result_is_not_opened(folder, tmp_path):
    path = folder.save_result("k", some_result())
    trap = saved(np.array([Trap(tmp_path / "sprung")], dtype=object), allow_pickle=True)
    content = rezipped(path.read_bytes(), lambda name, data: trap if name == "forget_logits.npy" else data)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged \(forget_logits claims the shape .* of object"):
        folder.load_result("k")
    assert not folder.is_done("k")
    assert not (tmp_path / "sprung").exists()


def test_failure_comes_back_and_gives_way_to_a_result(folder):
    failure = Failure("time-out", "unlearning() was stopped after 3.0 s.", "Zeile mit Ä", seconds=3.0)
    assert folder.load_failure("k") is None
    folder.save_failure("k", failure)
    assert folder.load_failure("k") == failure
    assert not folder.is_done("k")
    folder.save_result("k", some_result())
    assert folder.load_failure("k") is None


FAILURE = {"kind": "exception", "reason": "KeyError", "details": "", "seconds": None}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("null", "it must be an object, found null"),
        ("[]", "it must be an object, found []"),
        ("{}", "kind is missing"),
        (json.dumps({**FAILURE, "seconds": "3"}), "seconds must be a finite number, found '3'"),
        (json.dumps({**FAILURE, "seconds": True}), "seconds must be a finite number, found True"),
        (json.dumps({**FAILURE, "seconds": 10**400}), "seconds must be a finite number, found 1000"),
        (json.dumps({**FAILURE, "seconds": float("nan")}), "seconds must be a finite number, found nan"),
        (json.dumps({**FAILURE, "reason": None}), "reason must be text, found null"),
        (json.dumps({**FAILURE, "reason": ["x"] * 99}), "reason must be text, found ['x'"),
        (json.dumps({**FAILURE, "kind": "<b>"}), "kind must be one of exception"),
        (json.dumps({**FAILURE, "more": 1}), "more is no field that is known here"),
    ],
)
def test_a_damaged_failure_is_still_a_failure(folder, text, what):
    path = folder.root / "jobs" / "k.json"
    store.write_atomically(path, text.encode())
    found = folder.load_failure("k")
    assert found.kind == "unreadable"
    assert found.reason.startswith(f"The record of this failure, {path}, is damaged: {what}")
    assert len(found.reason) < len(str(path)) + 300


def test_bytes_that_are_no_text_are_a_damaged_failure(folder):
    store.write_atomically(folder.root / "jobs" / "k.json", b"\xff\xfe{")
    assert folder.load_failure("k").kind == "unreadable"


def test_a_failure_of_40_megabytes_is_cut(folder):
    folder.save_failure("k", Failure("exception", "x" * 20_000_000, "y" * 20_000_000 + "the end"))
    found = folder.load_failure("k")
    assert len(found.reason) + len(found.details) < 30_000
    assert found.details.endswith("the end")


def test_half_a_character_is_replaced(folder):
    store.write_atomically(folder.root / "jobs" / "k.json", json.dumps({**FAILURE, "reason": "\ud800"}).encode())
    assert folder.load_failure("k").reason == "?"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"workers": "2"}, "header.workers must be a whole number, found '2'"),
        ({"recipe": None}, "header.recipe must be an object, found null"),
        ({"environment": {}}, "header.environment.python is missing"),
        ({"schema": 1}, f"it has schema 1, this version reads {store.SCHEMA}"),
    ],
)
def test_header_of_wrong_types_is_damage(folder, change, what):
    path = folder.save_result("k", some_result())
    with np.load(path) as arrays:
        content = json.loads(str(arrays["header"]))
    changed = saved(np.array(json.dumps({**content, **change})))
    path.write_bytes(rezipped(path.read_bytes(), lambda name, data: changed if name == "header.npy" else data))
    for read in (folder.load_header, folder.load_result):
        with pytest.raises(ValueError) as error:
            read("k")
        assert f"is damaged ({what})" in str(error.value)


def test_a_header_is_read_without_the_arrays(folder):
    path = folder.save_result("k", some_result())
    header = folder.load_header("k")
    path.write_bytes(rezipped(path.read_bytes(), lambda name, data: data if name == "header.npy" else b"no array"))
    assert folder.load_header("k") == header
    with pytest.raises(ValueError, match="is damaged"):
        folder.load_result("k")


def test_entries_are_kept_as_they_were(folder):
    path = folder.keep_entry("# ä\nx = 1\n", "hash")
    assert path == folder.root / "entries" / "hash.py"
    assert path.read_text(encoding="utf-8") == "# ä\nx = 1\n"
    path.write_text("something else")
    folder.keep_entry("# ä\nx = 1\n", "hash")
    assert path.read_text(encoding="utf-8") == "# ä\nx = 1\n"


def test_file_in_the_place_of_the_folder(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ValueError) as error:
        RunFolder(path)
    assert str(error.value) == f"{path} is a file; name a folder with --out."


HOLD = """
import sys, time
from local_scorer.runs.store import RunFolder
lock = RunFolder(sys.argv[1]).try_lock("k")
print("held", flush=True)
time.sleep(60)
"""


def test_lock_held_by_another_process_until_that_is_killed(folder):
    holder = python(HOLD, folder.root)
    try:
        assert holder.stdout.readline() == "held\n"
        assert folder.try_lock("k") is None
        other = folder.try_lock("other")
        assert other is not None
        other.close()
    finally:
        holder.kill()
        holder.communicate()
    lock = folder.try_lock("k")
    assert lock is not None
    lock.close()


def test_lock_is_free_once_it_is_closed(folder):
    lock = folder.try_lock("k")
    assert folder.try_lock("k") is None
    lock.close()
    again = folder.try_lock("k")
    assert again is not None
    again.close()


def test_sweep_takes_only_what_nobody_works_in(folder):
    left = folder.new_work_folder("left")
    (left / "net.pt").touch()
    in_use = folder.new_work_folder("used")
    lock = folder.try_lock("used")
    folder.sweep()
    assert not left.exists()
    assert in_use.is_dir()
    lock.close()


def test_work_folders_are_new_and_empty(folder):
    one, other = folder.new_work_folder("k"), folder.new_work_folder("k")
    assert one != other
    assert list(one.iterdir()) == []
    folder.drop_work_folder(one)
    assert not one.exists()
    assert other.is_dir()


JOB = Job(
    role="unlearned",
    index=1,
    data="data/here",
    fingerprint="f" * 64,
    recipe=RECIPES["quick"],
    width=16,
    seed=0,
    device="cpu",
    entry="mine",
    entry_hash="a" * 64,
)
OTHERS = {
    "role": "retrained",
    "index": 2,
    "fingerprint": "e" * 64,
    "recipe": RECIPES["report"],
    "width": 32,
    "seed": 1,
    "device": "cuda",
    "entry_hash": "b" * 64,
    "original": 1,
    "weights": "c" * 64,
    "outputs": 10,
}
NAMES_AND_PLACES = [field.name for field in dataclasses.fields(Job) if field.name not in OTHERS]


@pytest.mark.parametrize("field", OTHERS)
def test_key_changes_with_what_decides_the_result(field):
    assert dataclasses.replace(JOB, **{field: OTHERS[field]}).key != JOB.key


@pytest.mark.parametrize("field", dataclasses.fields(RECIPES["quick"]), ids=lambda field: field.name)
def test_key_changes_with_every_setting_of_the_recipe(field):
    value = getattr(JOB.recipe, field.name)
    changed = not value if isinstance(value, bool) else value + value  # twice the number, or the text twice
    recipe = dataclasses.replace(JOB.recipe, **{field.name: changed})
    assert dataclasses.replace(JOB, recipe=recipe).key != JOB.key


@pytest.mark.parametrize("field", NAMES_AND_PLACES)
def test_key_does_not_change_with_names_and_places(field):
    assert dataclasses.replace(JOB, **{field: "another"}).key == JOB.key


def test_key_changes_with_the_schema(monkeypatch):
    before = store.content_key({"a": 1})
    monkeypatch.setattr(store, "SCHEMA", store.SCHEMA + 1)
    assert store.content_key({"a": 1}) != before


def test_environment_can_be_stored_as_json():
    environment = json.loads(json.dumps(dataclasses.asdict(store.environment())))
    assert environment["cores"] == store.usable_cores() >= 1
    assert environment["packages"]["numpy"] == np.__version__
