import os
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from local_scorer.models import nets, timing
from local_scorer.models.timing import Seconds, Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still: wall, and the four CPU times that `os.times` gives."""
    hands = SimpleNamespace(wall=100.0, user=1.0, system=2.0, children_user=3.0, children_system=4.0)
    monkeypatch.setattr(time, "perf_counter", lambda: hands.wall)
    monkeypatch.setattr(os, "times", lambda: hands)
    return hands


def test_seconds_of_the_block_alone(clock):
    clock.wall += 50
    with Stopwatch("cpu") as watch:
        clock.wall += 2.5
        clock.user += 1.5
    clock.wall += 50
    assert watch.seconds == Seconds(wall=2.5, cpu=1.5)


@pytest.mark.parametrize("hand", ["user", "system", "children_user", "children_system"])
def test_every_kind_of_cpu_time_counts(clock, hand):
    with Stopwatch("cpu") as watch:
        setattr(clock, hand, getattr(clock, hand) + 7)
    assert watch.seconds == Seconds(wall=0, cpu=7)


def test_sleeping_takes_wall_time_and_working_takes_cpu_time():
    with Stopwatch("cpu") as sleeping:
        time.sleep(0.05)
    with Stopwatch("cpu") as working:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    assert sleeping.seconds.wall >= 0.05 > sleeping.seconds.cpu
    assert working.seconds.cpu >= 0.03  # the system counts in hundredths, user and system time apart


def test_errors_pass_through_and_are_timed(clock):
    with pytest.raises(KeyError), Stopwatch("cpu") as watch:
        clock.wall += 3
        raise KeyError
    assert watch.seconds.wall == 3


def test_gpu_is_waited_for_before_the_clock_is_read(clock, monkeypatch):
    def synchronise(device):
        assert device == torch.device("cuda:1")
        clock.wall += 10  # seconds until the GPU has done its work

    monkeypatch.setattr(torch.cuda, "synchronize", synchronise)
    with Stopwatch("cuda:1") as watch:
        clock.wall += 2
    assert clock.wall == 122
    assert watch.seconds.wall == 12  # work that was under way before is not counted, the block's own is


def test_cpu_runs_need_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: pytest.fail("a GPU was asked for"))
    with Stopwatch("cpu") as watch:
        pass
    assert watch.seconds.wall >= 0


def test_warm_up_leaves_the_net_and_the_generator_as_they_were():
    net = nets.fresh_net(n_classes=8, width=16, seed=0).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    timing.warm_up(net, size=32, device="cpu")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not net.training
    assert torch.equal(torch.get_rng_state(), state)


def test_warm_up_runs_forward_and_backward():
    class Counter(nn.Module):
        calls = 0

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3, 2))

        def forward(self, images):
            Counter.calls += 1
            assert images.shape == (8, 3, 16, 16)
            output = images.mean(dim=(2, 3)) @ self.weight
            output.register_hook(lambda gradient: setattr(Counter, "calls", Counter.calls + 10))
            return output

    timing.warm_up(Counter(), size=16, device="cpu")
    assert Counter.calls == 11
