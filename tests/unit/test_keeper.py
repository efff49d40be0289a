"""The keeper's clocks, limits and end of a run, without torch: what a run does is a few lines of Python."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from local_scorer.execution.keeper import descendants

ROOT = Path(__file__).resolve().parents[2]
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")

SCRIPT = """
import json, mmap, os, signal, socket, sys, threading, time
from dataclasses import asdict
from pathlib import Path
from local_scorer.execution import keeper
from local_scorer.runs.store import Failure

os.chdir(sys.argv[1])
net = Path("net.pt")
keeper.SPARE_SECONDS = {spare}
perf_counter = time.perf_counter

def work(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass

def switches():
    status = Path(f"/proc/{{the_keeper}}/status").read_text()
    return int(status.split("\\nvoluntary_ctxt_switches:")[1].split()[0])

def be_looked_at():
    # the keeper sleeps between two looks
    before = switches()
    while switches() < before + 5:
        time.sleep(0.01)

def say(line):
    # into the scorer's own pipe, as an entry can that looks for it
    for place in range(3, 64):
        try:
            socket.socket(fileno=os.dup(place)).send(line)
        except OSError:
            pass

def run(start):
    start()
    begin = perf_counter()
{body}
    net.write_bytes(b"weights")
    return perf_counter() - begin

def describe(error):
    return Failure("exception", f"{{type(error).__name__}}: {{error}}")

the_keeper = os.getpid()
told = []
kept = keeper.keep(run, net, describe, 200 << 20, told.append, isolate={isolate})
left = keeper.descendants(os.getpid())
checkpoint = getattr(kept, "checkpoint", b"").decode()
told = [line.decode() for line in told]
print(json.dumps({{**asdict(kept), "checkpoint": checkpoint, "told": told, "left": left}}))
"""


@pytest.fixture(params=[True, False], ids=["own process space", "subreaper"])
def keep(request, tmp_path):
    """Return a function that has some lines kept, and returns what the keeper found."""

    def kept(body, spare=2.0):
        body = textwrap.indent(textwrap.dedent(body), "    ")
        script = SCRIPT.format(body=body, isolate=request.param, spare=spare)
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        found = json.loads(done.stdout)
        assert found["left"] == []
        return found

    return kept


def test_a_run_leaves_its_checkpoint_and_the_keepers_seconds(keep):
    found = keep("work(0.2)")
    assert found["checkpoint"] == "weights"
    assert found["told"] == ["start", "end"]
    assert 0.19 <= found["cpu_seconds"] < 0.5
    assert found["wall_seconds"] >= 0.2


HIDDEN_WORK = {
    "in a thread": """
        thread = threading.Thread(target=work, args=(0.3,))
        thread.start()
        thread.join()
    """,
    "in a thread that nobody waits for": """
        threading.Thread(target=work, args=(100,), daemon=True).start()
        while time.process_time() < 0.35:
            time.sleep(0.01)
    """,
    "in a child": """
        if os.fork() == 0:
            work(0.3)
            os._exit(0)
        os.wait()
    """,
    "in a child of a child in another session": """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                work(0.3)
                Path("done").touch()
                time.sleep(1000)
            os._exit(0)
        while not Path("done").exists():
            time.sleep(0.01)
    """,
}


@needs_proc
@pytest.mark.parametrize("body", HIDDEN_WORK.values(), ids=HIDDEN_WORK)
def test_cpu_seconds_are_those_of_all_processes(keep, body):
    assert keep(body)["cpu_seconds"] > 0.28  # of 0.3: the system may count in ticks of 0.01


@needs_proc
def test_children_whose_end_the_system_does_not_record_are_seen_at_work(keep):
    found = keep("""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        if os.fork() == 0:
            work(0.3)
            be_looked_at()
            Path("done").touch()
            os._exit(0)
        while not Path("done").exists():
            time.sleep(0.01)
    """)
    assert found["cpu_seconds"] > 0.28


def test_sleeping_does_not_stop_the_wall_clock(keep):
    found = keep("time.sleep(0.5)")
    assert found["wall_seconds"] >= 0.5
    assert found["cpu_seconds"] < 0.3


@pytest.mark.parametrize("clock", ["lambda: 0.0", "lambda: float('nan')", "lambda: begin + 1e6", "lambda: begin"])
def test_seconds_from_a_patched_clock_that_cannot_be_fail_the_run(keep, clock):
    found = keep(f"globals()['perf_counter'] = {clock}")
    assert found["kind"] in ("clock", "exception")


def test_a_clock_that_runs_slow_fails_the_run(keep):
    slow = """
        work(0.5)
        globals()["perf_counter"] = lambda: begin + 0.1
    """
    found = keep(slow, spare=0.2)
    assert found["kind"] == "clock"


def test_what_raises_is_a_failure_of_a_limited_size(keep):
    found = keep("raise ValueError('x' * 40_000_000)")
    assert found["kind"] == "exception"
    assert found["reason"].startswith("ValueError: xxx")
    assert len(found["reason"]) <= 500


@pytest.mark.parametrize("line", [b"[]", b"{", b"null", b'{"end": "1"}', b'{"end": NaN}', b'{"failure": [1, 2]}'])
def test_other_words_than_the_known_ones_end_the_run(keep, line):
    found = keep(f"say({line!r} + b'\\n')\ntime.sleep(1000)")
    assert found["kind"] == "exception"
    assert found["checkpoint"] == ""


def test_a_message_without_end_ends_the_run(keep):
    found = keep("say(b'x' * 100_000)\ntime.sleep(1000)")
    assert found["kind"] == "exception"


@needs_proc
def test_shared_memory_has_a_limit(keep):
    found = keep("""
        shared = mmap.mmap(-1, 300 << 20)
        for _ in range(300):
            shared.write(bytes(1 << 20))
        time.sleep(1000)
    """)
    assert found["kind"] == "memory"


@needs_proc
def test_memory_shared_by_many_counts_once(keep):
    found = keep("""
        shared = mmap.mmap(-1, 60 << 20)
        shared.write(bytes(60 << 20))
        for child in range(5):
            if os.fork() == 0:
                sum(memoryview(shared)[::4096])
                time.sleep(1000)
        be_looked_at()
    """)
    assert found["checkpoint"] == "weights"


@needs_proc
def test_a_fork_bomb_is_ended(keep):
    found = keep("""
        for child in range(1000):
            if os.fork() == 0:
                time.sleep(1000)
    """)
    assert found["kind"] == "killed"


@pytest.mark.parametrize("body", ["os._exit(0)", "os.kill(os.getpid(), 9)", "os.abort()"])
def test_an_end_without_a_word_is_told(keep, body):
    found = keep(body)
    assert found["reason"].startswith("The process ")
    assert found["told"] == ["start"]


@pytest.mark.parametrize(
    "body",
    [
        "os.symlink('/etc/hostname', net)\nreturn 1e-6",
        "os.mkfifo(net)\nreturn 1e-6",
        "os.mkdir(net)\nreturn 1e-6",
        "return 1e-6",
        "os.truncate(os.open(net, os.O_CREAT | os.O_RDWR), 1 << 40)\nreturn 1e-6",
    ],
    ids=["link", "pipe", "folder", "none", "too large"],
)
def test_only_a_plain_file_is_a_checkpoint(keep, body):
    assert keep(body)["kind"] == "weights"


@needs_proc
def test_nothing_is_left_when_the_keeper_is_stopped(tmp_path):
    """SIGTERM, as the engine sends it when the time is over."""
    body = "    if os.fork() == 0:\n        os.setsid()\n    time.sleep(1000)\n"
    for isolate in (True, False):
        script = SCRIPT.format(body=body, isolate=isolate, spare=2.0)
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while len(running := descendants(process.pid)) < (3 if isolate else 2):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.terminate()
        process.communicate(timeout=30)
        assert not [pid for pid in running if Path(f"/proc/{pid}").exists()]
