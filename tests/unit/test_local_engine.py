"""The local engine against entries that lie, flood, kill and rewrite, and against interrupts at bad moments."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep import dataset
from local_scorer.execution import command, contract, interrupts, pool
from local_scorer.execution.job import Job
from local_scorer.execution.local import LocalEngine
from local_scorer.models.recipes import Recipe
from local_scorer.runs import store
from local_scorer.runs.store import RunFolder

ROOT = Path(__file__).resolve().parents[2]
A_MOMENT = Recipe("a moment", "adam", lr=1e-3, weight_decay=0.0, epochs=1)
CONTRACT = "def unlearning(net, retain_loader, forget_loader, val_loader):\n    "
NOTHING = CONTRACT + "pass\n"

# Finds the scorer's own pipe, which any entry can do.
TALK = """
import os, stat
def pipes():
    return [place for place in map(int, os.listdir('/proc/self/fd')) if is_socket(place)]
def is_socket(place):
    try:
        return stat.S_ISSOCK(os.fstat(place).st_mode)
    except OSError:
        return False
def say(line):
    for place in pipes():
        os.write(place, line)
"""

KILL_PARENT = "import os, signal, time\n" + CONTRACT + "os.kill(os.getppid(), signal.SIGKILL); time.sleep(1)\n"
KILL_SERVER = (
    "import os, signal, time\n"
    + CONTRACT
    + """server = open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[1]
    os.kill(int(server), signal.SIGKILL)
    time.sleep(1)
    os._exit(255)
"""
)
HUGE_MESSAGE = CONTRACT + "raise ValueError('x' * 40_000_000)\n"
ODD_MESSAGE = CONTRACT + "raise ValueError('\\ud800 \\x00' + '\\U0001f600' * 10_000)\n"
FLOOD = TALK + CONTRACT + "[say(b'x' * 4096) for _ in range(100_000)]\n"
HALF_LINE = TALK + CONTRACT + "say(b'{\"kind\": '); os._exit(0)\n"
CLOSED = TALK + CONTRACT + "[os.close(place) for place in pipes()]\n"
FORGED = TALK + CONTRACT + """say(b'{"end": 0.001}\\n'); import time; time.sleep(100)\n"""


@pytest.fixture(scope="module")
def trained(tiny_data, tmp_path_factory):
    """A run folder with a trained original, and its job."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    base = Job("original", 0, str(tiny_data), dataset.load(tiny_data).fingerprint, A_MOMENT, 16, 0, "cpu")
    assert outcomes(folder, [base]) == {base: None}
    return folder, base


def outcomes(folder, jobs, workers=2, limit=60.0, sandbox="auto"):
    """Run jobs and return what came of each, without the rule that one failure drops the rest of an entry."""
    found = {}
    with LocalEngine(folder, workers=workers, sandbox=sandbox) as engine:
        for job in jobs:
            engine.submit(job, limit)
        while len(found) < len(jobs):
            found |= dict(engine.wait(timeout=10.0))
    return found


def entry(trained, source, index=0):
    """Return the job of run `index` of an entry with this text."""
    folder, base = trained
    digest = contract.source_hash(source)
    folder.keep_entry(source, digest)
    return replace(base, role="unlearned", index=index, entry="mine", entry_hash=digest)


@pytest.mark.parametrize(
    ("source", "kind", "reason"),
    [
        (HUGE_MESSAGE, "exception", "ValueError: xxxx"),
        (ODD_MESSAGE, "exception", "ValueError: "),
        (FLOOD, "exception", "The entry's process sent the scorer something that cannot be read."),
        (HALF_LINE, "exception", "The process ended (exit code 0) before unlearning() returned."),
        (FORGED, "weights", "The run left no checkpoint."),
    ],
    ids=["huge message", "odd message", "flood", "half a line", "forged"],
)
def test_what_a_child_says_is_data_and_bounded(trained, source, kind, reason):
    folder, _ = trained
    job = entry(trained, source)
    failure = outcomes(folder, [job])[job]
    assert failure.kind == kind
    assert failure.reason.startswith(reason)
    assert len(failure.reason) <= 2000 and len(failure.details) <= 20_000
    folder.save_failure(job.key, failure)
    assert folder.load_failure(job.key) == failure


def test_an_entry_that_closes_the_pipe_is_one_that_did_not_return(trained):
    """Nor does the parent look at the closed pipe again and again."""
    folder, _ = trained
    job = entry(trained, CLOSED + "    import time; time.sleep(3)\n")
    before = time.process_time()
    assert outcomes(folder, [job])[job].kind == "exception"
    assert time.process_time() - before < 1.5


@pytest.fixture()
def busy_cores():
    """Four programs a core that are always ready to work, each in a session of its own, as another user's are."""
    others = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        for _ in range(4 * store.usable_cores())
    ]
    yield
    for other in others:
        other.kill()
        other.wait()


WORK = "import time\n" + CONTRACT + "end = time.process_time() + 1.0\n    while time.process_time() < end: pass\n"
NO_END = CONTRACT + "while True: pass\n"
ASLEEP = "import time\n" + CONTRACT + "time.sleep(100)\n"


@pytest.mark.skipif(not Path("/proc/self/schedstat").is_file(), reason="only Linux counts time without a core")
def test_an_entry_is_not_stopped_for_time_in_which_others_had_the_cores(trained, busy_cores):
    folder, _ = trained
    job = entry(trained, WORK)
    assert outcomes(folder, [job], workers=1, limit=2.0) == {job: None}
    result = folder.load_result(job.key)
    assert result.wall_seconds > 2.0  # so it would have been
    assert 0 <= time.time() - result.header.finished < 60


@pytest.mark.parametrize("source", [NO_END, ASLEEP], ids=["at work", "asleep"])
def test_an_entry_without_end_is_stopped_on_a_busy_machine_too(trained, busy_cores, source):
    folder, _ = trained
    job = entry(trained, source)
    failure = outcomes(folder, [job], workers=1, limit=1.0)[job]
    assert failure.kind == "time-out"
    assert failure.reason == f"unlearning() was stopped after {failure.seconds:.1f} s."
    assert 1.0 < failure.seconds < 3.0


def test_one_process_evaluates_the_runs_of_an_entry_and_none_changes_the_next(trained):
    folder, base = trained
    ruined = replace(base, role="unlearned", index=2).job_seed
    source = f"import torch\n{CONTRACT}torch.initial_seed() == {ruined} and net.fc.bias.data.fill_(torch.nan)\n"
    jobs = [entry(trained, source, index) for index in range(4)]
    found = outcomes(folder, jobs, workers=1)
    assert [found[job] and found[job].kind for job in jobs] == [None, None, "weights", None]
    first, *others = [folder.load_result(job.key) for job in jobs if found[job] is None]
    assert all(np.array_equal(first.logits["forget"], other.logits["forget"]) for other in others)


def test_ending_the_fork_server_costs_an_innocent_run_nothing(trained):
    """The innocent one is in the middle of its work, and another is started after the end of the server."""
    folder, _ = trained
    slow = CONTRACT + "import time; time.sleep(3)\n"
    guilty = entry(trained, KILL_SERVER)
    innocent = [entry(trained, slow), entry(trained, NOTHING), entry(trained, NOTHING, index=1)]
    found = outcomes(folder, [innocent[0], guilty, *innocent[1:]], sandbox="off")
    assert [found[job] for job in innocent] == [None, None, None]
    assert found[guilty].kind == "killed"
    assert "ended the process that starts all runs" in found[guilty].reason


def test_an_entry_that_kills_its_parent_costs_nobody_else_anything(trained):
    folder, _ = trained
    guilty, innocent = entry(trained, KILL_PARENT), entry(trained, NOTHING, index=2)
    for sandbox in ("auto", "off"):
        found = outcomes(folder, [guilty, innocent], sandbox=sandbox)
        assert found[innocent] is None
        folder.result_path(innocent.key).unlink()


def test_an_exit_code_of_255_is_reported_and_not_an_end_of_the_fork_server(trained):
    folder, _ = trained
    job = entry(trained, "import os\n" + CONTRACT + "os._exit(255)\n")
    assert "exit code 255" in outcomes(folder, [job])[job].reason


def test_an_entry_that_rewrites_its_own_text_is_not_run_again(trained, tmp_path):
    """Neither by changing the file, nor by a compiled copy beside it."""
    folder, _ = trained
    ran = tmp_path / "ran"
    other = f"open({str(ran)!r}, 'w').close()\n" + NOTHING
    kept = f"Path({str(folder.root)!r}, 'entries').iterdir()"
    source = "from pathlib import Path\n" + CONTRACT + f"[file.write_text({other!r}) for file in {kept}]\n"
    first, second = entry(trained, source), entry(trained, source, index=1)
    assert outcomes(folder, [first], sandbox="off") == {first: None}
    failure = outcomes(folder, [second], sandbox="off")[second]
    assert failure.kind == "signature"
    assert "was changed while the run was under way" in failure.reason
    assert not ran.exists()


def test_the_text_is_what_runs_and_no_compiled_copy_beside_it(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(NOTHING)
    contract.load_entry(path, contract.source_hash(NOTHING))
    assert not list(tmp_path.rglob("*.pyc"))
    path.write_text(NOTHING + "# a comment does not count\n")
    contract.load_entry(path, contract.source_hash(NOTHING))
    path.write_text(NOTHING + "x = 1\n")
    with pytest.raises(contract.EntryError, match="was changed"):
        contract.load_entry(path, contract.source_hash(NOTHING))


def test_the_job_command_does_all_steps_and_leaves_a_result_or_a_failure(trained, tmp_path):
    folder, _ = trained
    good, bad = entry(trained, NOTHING, index=7), entry(trained, CONTRACT + "raise KeyError('no')\n")
    file = tmp_path / "job.json"
    file.write_text(good.to_json())
    assert command.do(file, folder) is None
    assert good.is_done(folder)
    file.write_text(bad.to_json())
    assert command.do(file, folder).reason == "KeyError: 'no'"
    assert folder.load_failure(bad.key).reason == "KeyError: 'no'"
    file.write_text("{}")
    with pytest.raises(ValueError, match="holds no job that can be done"):
        command.do(file, folder)


def test_closing_ends_what_runs(trained):
    folder, _ = trained
    endless = entry(trained, CONTRACT + "while True: pass\n")
    with LocalEngine(folder, workers=1) as engine:
        engine.submit(endless)
        assert engine.wait(timeout=3.0) == []
        assert list((folder.root / "work").glob(f"{endless.key}-*"))
    assert not list((folder.root / "work").glob(f"{endless.key}-*"))
    assert engine.wait(timeout=1.0) == []


def test_close_works_after_an_interrupt_between_the_end_of_a_process_and_that_of_its_job(trained, monkeypatch):
    """A closed process answers every question with an error, which would take the interrupt's place."""
    folder, _ = trained

    def interrupt(*_):
        raise KeyboardInterrupt

    job = entry(trained, NOTHING, index=8)
    with pytest.raises(KeyboardInterrupt), LocalEngine(folder, workers=1) as engine:
        engine.submit(job)
        monkeypatch.setattr(Job, "is_done", interrupt)
        while True:
            engine.wait(timeout=1.0)
    assert not list((folder.root / "work").glob(f"{job.key}-*"))


def test_jobs_of_an_interrupted_call_do_not_disturb_the_next(trained):
    folder, base = trained
    broken, good = replace(base, index=1, data="no such folder"), replace(base, role="retrained")
    progress = pool.Progress(2, 0, 1, show=False)
    with LocalEngine(folder, workers=2) as engine:
        engine.submit(replace(base, role="ceiling"))
        with pytest.raises(RuntimeError, match="Training model 1"):
            pool.run([broken], folder, engine, progress)
        assert pool.run([good], folder, engine, progress) == {}


@pytest.fixture
def interruptible():
    """Ctrl-C as a program has it at its start; a shell's "&" turns it off."""
    usual = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in usual.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_signal_waits_for_the_end_of_a_start(interruptible, number):
    interrupts.install()
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with interrupts.held_back():
            signal.raise_signal(number)
            steps.append("started")
        steps.append("not reached")
    assert steps == ["started"]


TWICE = """
import contextlib, os, signal, sys
from local_scorer.execution import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.install()
with contextlib.suppress(KeyboardInterrupt), interrupts.held_back() if sys.argv[1] else contextlib.nullcontext():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize("held", ["held back", ""])
def test_a_second_signal_ends_everything_at_once(held):
    done = subprocess.run([sys.executable, "-c", TWICE, held], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == interrupts.INTERRUPTED
    assert done.stderr.startswith(b"\nInterrupted: ended at once.")


HELD = """
import signal, time
from local_scorer.execution import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupts.install()
interrupts.HELD_SECONDS = 0.01
with interrupts.held_back():
    signal.raise_signal(signal.SIGINT)
    time.sleep(600)
"""


def test_a_signal_that_is_held_back_for_long_ends_everything_at_once():
    done = subprocess.run([sys.executable, "-c", HELD], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == interrupts.INTERRUPTED


def test_an_ignored_signal_stays_ignored(interruptible):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.install()
    with interrupts.held_back():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
