"""What is sent to other processes: memory maps as paths; what cannot be sent is named."""

import functools
import pickle
import threading

import numpy as np
import pytest
import torch

from flops_fit.runtime.sending import UnsendableError, dumps, size_to_send

NUMBERS = 2**18  # float32: 1 MiB


class Holder:
    """An object with one attribute."""

    def __init__(self, held):
        self.held = held


class Slotted:
    __slots__ = ("held",)


@pytest.fixture
def mapped(tmp_path):
    """A memory map of 2 MiB."""
    np.arange(2 * NUMBERS, dtype=np.float32).tofile(tmp_path / "data.bin")

    def open_map(mode="r"):
        return np.memmap(tmp_path / "data.bin", np.float32, mode, shape=(2, NUMBERS))

    return open_map


@pytest.mark.parametrize(
    "view",
    [lambda m: m, lambda m: m[1:], lambda m: m.T, lambda m: np.asarray(m), lambda m: m.view("i4")],
    ids=["whole", "rows", "transposed", "array", "other type"],
)
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_memory_map_is_sent_as_its_path(mapped, view, mode):
    array = view(mapped(mode))
    sent = dumps(Holder(array))
    assert len(sent) < 2000
    assert size_to_send(array) < 2000
    received = pickle.loads(sent).held
    assert type(received) is type(array)
    np.testing.assert_array_equal(received, array)
    if mode == "r+":  # as in a copy, what is written stays there
        received.flat[0] = -5.0
        assert array.flat[0] != -5.0


@pytest.mark.parametrize(
    "view", [lambda m: m[:, ::2], lambda m: m[:1, :10]], ids=["strides", "small"]
)
def test_other_views_are_sent_whole(mapped, view):
    array = view(mapped())
    np.testing.assert_array_equal(pickle.loads(dumps(array)), array)
    assert size_to_send(array) >= array.nbytes


def test_so_are_changes_in_memory_and_deleted_files(mapped, tmp_path):
    private = mapped("c")
    private[0, 0] = 7.0
    assert pickle.loads(dumps(private))[0, 0] == 7.0
    array = mapped()
    (tmp_path / "data.bin").unlink()
    np.testing.assert_array_equal(pickle.loads(dumps(array)), array)


def test_a_file_that_is_on_no_other_machine_is_said(mapped, tmp_path):
    sent = dumps(mapped())
    (tmp_path / "data.bin").unlink()
    with pytest.raises(FileNotFoundError, match="not on this machine: put it on a shared"):
        pickle.loads(sent)


@pytest.mark.parametrize(
    "data",
    [np.zeros(NUMBERS, np.float32), torch.zeros(NUMBERS), {"a": [torch.zeros(2, NUMBERS)[:1]]}],
    ids=["array", "tensor", "view"],
)
def test_large_data_are_counted(data):
    assert 2**20 <= size_to_send(Holder(data)) < 2**21 + 10_000


def test_shared_storage_is_counted_once():
    data = torch.zeros(NUMBERS)
    assert size_to_send([data, data[1:], data.view(2, -1)]) < 1.1 * 2**20


def locked_closure():
    lock = threading.Lock()
    return lambda: lock


def slotted():
    value = Slotted()
    value.held = threading.Lock()
    return value


@pytest.mark.parametrize(
    ("make", "path", "kind"),
    [
        (lambda: threading.Lock(), "", "lock"),
        (lambda: (i for i in range(3)), "", "generator"),
        (lambda: Holder(open(__file__, "rb")), ".held", "BufferedReader"),
        (lambda: Holder({"a": [1, threading.local()]}), ".held['a'][1]", "_local"),
        (lambda: functools.partial(print, threading.Lock()), ".args[0]", "lock"),
        (lambda: locked_closure(), ": its variable lock", "lock"),
        (lambda: Holder(threading.Lock()).__init__, ".__self__.held", "lock"),
        (slotted, ".held", "lock"),
    ],
)
def test_what_cannot_be_sent_is_named(make, path, kind):
    with pytest.raises(UnsendableError) as caught:
        size_to_send(make())
    part = caught.value.part
    if hasattr(part, "close"):
        part.close()
    assert caught.value.path == path
    assert type(part).__name__ == kind


def test_a_circle_ends():
    holder = Holder(threading.Lock())
    holder.held = [holder, holder.held]
    with pytest.raises(UnsendableError) as caught:
        size_to_send(holder)
    assert type(caught.value.part).__name__ == "lock"


def test_a_device_that_workers_do_not_see_is_refused(monkeypatch):
    second = property(lambda storage: torch.device("cuda:1"))
    data = torch.zeros(3)
    monkeypatch.setattr(torch.UntypedStorage, "device", second)
    with pytest.raises(UnsendableError, match="a worker has no device cuda:1: keep it on the CPU"):
        size_to_send(data.untyped_storage())
