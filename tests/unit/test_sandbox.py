"""What a confined process can and cannot reach, tried in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_scorer.execution import sandbox

ROOT = Path(__file__).resolve().parents[2]
needs_landlock = pytest.mark.skipif(not sandbox.landlock_version(), reason="this system has no Landlock")

CONFINED = """
import os, shutil, socket, sys
from pathlib import Path
from local_scorer.execution import sandbox
run, data = Path(sys.argv[1]), Path(sys.argv[2])
private = run / "work" / "private"
sandbox.confine([data, run / "entries" / "entry.py"], [private], run)
sandbox.use_private_folder(private)
"""


@pytest.fixture
def folders(tmp_path):
    """Return a run folder with a stored result, and a data folder beside it."""
    for folder in ("run/jobs", "run/entries", "run/work/private", "data"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "run/jobs/result.npz").write_text("stored")
    (tmp_path / "run/entries/entry.py").write_text("text")
    (tmp_path / "data/images.npy").write_text("pictures")
    return tmp_path / "run", tmp_path / "data"


def confined(folders, body, script=CONFINED):
    """Run some lines in a confined process; return what it wrote to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", script + body, *map(str, folders)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stderr


@needs_landlock
@pytest.mark.parametrize(
    "body",
    [
        "(run / 'jobs' / 'result.npz').read_text()",
        "os.listdir(run / 'jobs')",
        "os.listdir('../..')",
        "(run / 'jobs' / 'result.npz').write_text('better')",
        "(run / 'jobs' / 'result.npz').unlink()",
        "os.rename(run / 'jobs', 'jobs')",
        "os.link(run / 'jobs' / 'result.npz', 'linked')",
        "os.symlink(run / 'jobs' / 'result.npz', 'linked'); open('linked').read()",
        "shutil.rmtree(run)",
        "(run / 'entries' / 'entry.py').write_text('other text')",
        "(data / 'images.npy').write_text('other pictures')",
        "open('/tmp/left-behind-by-a-test', 'w')",
        "os.listdir(os.path.expanduser('~root'))",
        "os.chdir('/'); open('here', 'w')",
        "os.kill(os.getppid(), 0)",
    ],
)
def test_what_is_out_of_reach(folders, body):
    if "kill" in body and sandbox.landlock_version() < sandbox.SIGNALS_SINCE:
        pytest.skip("signals are kept in since Linux 6.12")
    error = confined(folders, body)
    assert "PermissionError" in error or "cross-device" in error  # what a link to elsewhere gets
    run, data = folders
    assert (run / "jobs/result.npz").read_text() == "stored"
    assert (run / "entries/entry.py").read_text() == "text"
    assert (data / "images.npy").read_text() == "pictures"


@needs_landlock
@pytest.mark.parametrize(
    "body",
    [
        "(data / 'images.npy').read_text()",
        "(run / 'entries' / 'entry.py').read_text()",
        "Path('net.pt').write_text('weights'); os.rename('net.pt', 'other'); os.unlink('other')",
        "import tempfile; tempfile.NamedTemporaryFile().write(b'x'); assert tempfile.gettempdir() == os.getcwd()",
        "import subprocess; subprocess.run([sys.executable, '-c', 'import numpy'], check=True)",
        "import multiprocessing; multiprocessing.get_context('fork').Pool(1).map(abs, [1])",
        "import json, numpy, local_scorer; open('/dev/null', 'w').write('x'); open('/proc/self/status').read()",
        "os.kill(os.getpid(), 0)",
    ],
)
def test_what_an_entry_needs_works(folders, body):
    assert confined(folders, body) == ""


@needs_landlock
def test_a_run_folder_inside_a_readable_one_is_closed_all_the_same(folders, tmp_path):
    """As where everything lies below /usr/src/app."""
    (tmp_path / "near").write_text("text")
    wider = f"sandbox.SYSTEM += ({str(tmp_path)!r},)\n"
    script = CONFINED.replace("private =", wider + "private =", 1)
    assert confined(folders, f"open({str(tmp_path / 'near')!r}).read()", script) == ""
    assert "PermissionError" in confined(folders, "(run / 'jobs' / 'result.npz').read_text()", script)


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock and process spaces are Linux's")
@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_is_confined_as_root_is(folders, tmp_path):
    """It loads Python first: that of root need not be readable by others."""
    run, data = folders
    for folder in (data, run, run / "jobs", *run.parents):
        if folder.is_relative_to(tmp_path.parents[1]):
            folder.chmod(0o755)
    become = "os.setgid(65534); os.setuid(65534); print((run / 'jobs' / 'result.npz').read_text())\n"
    script = CONFINED.replace("sandbox.confine", become + "sandbox.confine")
    script = script.replace("sandbox.use_private_folder(private)", "")
    done = subprocess.run(
        [sys.executable, "-c", script + "(run / 'jobs' / 'result.npz').read_text()", *map(str, folders)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "stored\n"
    assert "PermissionError" in done.stderr


def test_probe_says_what_each_mechanism_gives():
    found = sandbox.probe()
    assert all(getattr(found, name) for name in ("files", "network", "processes", "memory"))
    assert set(found.missing) <= {"files", "processes", "memory"}
    assert ("files" in found.missing) == (not sandbox.landlock_version())


def test_required_refuses_a_machine_that_cannot_isolate(monkeypatch):
    monkeypatch.setattr(sandbox.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", ""))
    assert sandbox.probe("auto").missing
    with pytest.raises(ValueError, match="--sandbox required: this machine does not isolate everything"):
        sandbox.probe("required")


def test_off_tries_nothing(monkeypatch):
    monkeypatch.setattr(sandbox.subprocess, "run", None)
    assert "not asked for" in sandbox.probe("off").files
    with pytest.raises(ValueError, match="must be one of auto, required, off, found 'on'"):
        sandbox.probe("on")
