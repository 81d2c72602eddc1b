"""The clock of a device, on a stand-in for one: what it is asked, when it is waited for, and what it held."""

import contextlib

import pytest
import torch
from torch import nn
from toys import SLEEP, Slow, about

import hookline
from hookline.profiling.clock import Clock

DEVICE = torch.device("cuda", 1)
X = torch.ones(2, 4)


class Stream:
    def __init__(self, device):
        self.device = device


class Device:
    """Stands in for an accelerator: it knows which events it has been waited for, and keeps an account of memory."""

    def __init__(self):
        self.stream = Stream(DEVICE)
        self.events, self.log, self.allocated, self.peak = [], [], 0, 0

    def current_stream(self, device):
        assert device == DEVICE
        return self.stream

    def synchronize(self, device):
        assert device == DEVICE
        self.log.append("waited")
        for event in self.events:
            event.waited = True

    def reset_peak_memory_stats(self, device):
        assert device == DEVICE
        self.peak = self.allocated

    def max_memory_allocated(self, device):
        assert device == DEVICE
        return self.peak

    @contextlib.contextmanager
    def on_a_stream(self):
        before, self.stream = self.stream, Stream(DEVICE)
        yield
        self.stream = before

    def use(self, size):
        self.peak = max(self.peak, self.allocated + size)


@pytest.fixture
def device(monkeypatch, simulated):
    known = Device()

    class Event:
        def __init__(self, device, *, enable_timing):
            assert device == DEVICE
            assert enable_timing
            self.stream, self.waited, self.at = None, False, None

        def record(self, stream):
            assert stream.device == DEVICE
            self.stream, self.at = stream, simulated.perf_counter()
            known.events.append(self)

        def elapsed_time(self, other):
            assert self.waited, "an event is not over before the device was waited for"
            assert other.waited
            return (other.at - self.at) * 1e3

    monkeypatch.setattr(torch, "Event", Event)
    for name in ("current_stream", "synchronize", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.accelerator, name, getattr(known, name))
    monkeypatch.setattr("hookline.tools.profile.device_of", lambda model, inputs: DEVICE)
    return known


class Tells(nn.Module):
    """Says on the device's log that it runs."""

    def __init__(self, device):
        super().__init__()
        self.log = device.log

    def forward(self, x):
        self.log.append("ran")
        x.register_hook(lambda gradient: self.log.append("ran backward"))
        return x * 1


def test_times_are_those_of_events(device):
    found = hookline.profile(nn.Sequential(nn.Linear(4, 4), Slow(SLEEP)), X, repeat=2)
    assert found["1"].forward_self == about(SLEEP)
    assert found.plain[0] == about(SLEEP)
    assert found["0"].forward_self < SLEEP / 50
    assert found.device == "cuda:1"
    assert found.taken_off == 0


def test_the_device_is_waited_for_only_when_a_step_is_over(device):
    hookline.profile(nn.Sequential(nn.Linear(4, 4), Tells(device), nn.Linear(4, 4)), X, repeat=2, warmup=0)
    step = ["ran", "ran backward"]
    assert device.log == [*step, *2 * [*step, "waited", *step, "waited", "waited"]]


def test_each_time_is_read_on_the_stream_that_is_current_then(device):
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Slow(SLEEP)

        def forward(self, x):
            with device.on_a_stream():
                return self.inner(x)

    found = hookline.profile(nn.Sequential(Aside(), Slow(SLEEP)), X, repeat=1, warmup=0, backward=False)
    assert len({event.stream for event in device.events}) == 2
    for path in ("0.inner", "1"):
        assert found[path].forward_self == about(SLEEP)
    assert found["0"].forward_self < SLEEP / 50


def test_the_peak_is_that_of_the_plain_steps(device):
    class Uses(nn.Module):
        sizes = [9000, 10, 3000, 8000, 4000, 8000]  # counted, warm; then plain and profiled by turns

        def forward(self, x):
            device.use(self.sizes.pop(0))
            return x * 1

    found = hookline.profile(nn.Sequential(nn.Linear(4, 4), Uses()), X, repeat=2, warmup=1)
    assert found.peak == 4000
    assert "peak memory 4 kB" in repr(found)


def test_a_device_that_keeps_no_account_of_memory_has_no_peak(device, monkeypatch):
    def refuse(device):
        raise RuntimeError("no account is kept")

    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", refuse)
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", refuse)
    assert hookline.profile(nn.Linear(4, 4), X, repeat=1).peak is None


def test_the_host_has_no_peak():
    assert hookline.profile(nn.Linear(4, 4), X, repeat=1).peak is None
    assert Clock(torch.device("cpu")).peak() is None


def test_a_model_or_inputs_on_a_device_are_timed_by_its_clock():
    from hookline.tools.profile import device_of

    class On:
        """A tensor on a device that this machine need not have."""

        device = DEVICE

    class Split(nn.Module):
        def parameters(self, recurse=True):
            return iter([torch.ones(1), On()])

    assert device_of(Split(), X) == DEVICE
    assert device_of(nn.ReLU(), X) == torch.device("cpu")


def test_calls_stay_on_the_track_of_the_thread_that_made_them(device, tmp_path):
    found = hookline.profile(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), X, repeat=1)
    assert len({span.thread for span in found.spans}) == 1
