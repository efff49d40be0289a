"""An interrupt that comes while a job starts or ends."""

import multiprocessing
import signal
from types import SimpleNamespace

import pytest

from local_scorer.execution.local import LocalExecutor, _interrupts_wait, _Run


def interrupt(_folder):
    raise KeyboardInterrupt


def test_close_works_after_an_interrupt_between_the_end_of_a_process_and_that_of_its_job(tmp_path):
    """A closed process answers every question with an error, which would take the interrupt's place."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=print)
    process.start()
    process.join()
    dropped = []
    executor = LocalExecutor.__new__(LocalExecutor)  # without a fork server
    executor.folder = SimpleNamespace(drop_work_folder=dropped.append)
    executor._runs = [_Run(SimpleNamespace(is_done=interrupt), None, 0, tmp_path, "train", process, receiver)]
    with pytest.raises(KeyboardInterrupt):
        executor.wait(timeout=1)
    executor.close()
    sender.close()
    assert dropped == [tmp_path]
    assert executor.running == []


def test_an_interrupt_waits_for_the_end_of_a_start():
    steps = []
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" turns it off
    try:
        with pytest.raises(KeyboardInterrupt):
            with _interrupts_wait():
                signal.raise_signal(signal.SIGINT)
                steps.append("started")
            steps.append("not reached")
        assert steps == ["started"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, usual)
