"""Memory that a step frees is kept for the next one, and given back after the last.

What that saves is measured (docs/log.md), not tested: without the switches too it depends on the
heap's layout.
"""

import platform

import pytest

from flops_fit.runtime import malloc
from flops_fit.runtime.malloc import freed_memory_kept


class Libc:
    """Notes the switches as they are set, and when memory was given back."""

    def __init__(self):
        self.switches, self.trimmed = {}, 0

    def mallopt(self, switch, value):
        self.switches[switch] = value

    def malloc_trim(self, pad):
        self.trimmed += 1


@pytest.fixture
def libc(monkeypatch):
    libc = Libc()
    monkeypatch.setattr(malloc, "_glibc", lambda: libc)
    monkeypatch.setattr(malloc.torch.cuda, "is_available", lambda: False)
    return libc


def test_nothing_is_mapped_or_trimmed_within_and_all_is_returned_after(libc):
    def fail():
        assert libc.switches == {-1: 2**31 - 1, -4: 0}
        assert not libc.trimmed
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), freed_memory_kept():
        fail()
    assert libc.switches == {-1: 64 << 20, -3: 32 << 20, -4: 65536}
    assert libc.trimmed == 1


def test_nothing_is_set_with_a_gpu(libc, monkeypatch):
    monkeypatch.setattr(malloc.torch.cuda, "is_available", lambda: True)
    with freed_memory_kept():
        pass
    assert libc.switches == {}


def test_parameters_that_the_user_set_and_other_allocators_are_left_alone(monkeypatch):
    find = malloc._glibc.__wrapped__
    for name in malloc._SET_BY_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert find() is not None
    monkeypatch.setenv("MALLOC_MMAP_MAX_", "65536")
    assert find() is None
    monkeypatch.delenv("MALLOC_MMAP_MAX_")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert find() is None
    with freed_memory_kept():  # nothing to be done
        pass
