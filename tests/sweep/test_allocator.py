"""Memory that a step frees is kept for the next one, and given back after the last.

Each test has a process of its own: the allocator's switches hold for all of it.
"""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc's malloc only")

STEPS = """
import resource
import torch
from flops_fit.sweep.allocator import freed_memory_kept

def buffers():  # as a step allocates them: 100 MiB in one, 128 MiB in small ones
    return torch.ones(100 << 18), [torch.ones(4 << 18) for _ in range(32)]

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1])

with freed_memory_kept():
    for _ in range(3):  # the heap may have to grow once more
        buffers()
    before = pages()
    for _ in range(5):
        buffers()
    asked = (pages() - before) // 5
    held = resident()
print(asked, held - resident())
"""
STEP = (228 << 20) // os.sysconf("SC_PAGESIZE")  # pages of a step's buffers


def pages(**env):
    """Pages asked of the kernel a step, and those given back at the end."""
    done = subprocess.run(
        [sys.executable, "-c", STEPS],
        capture_output=True, text=True, check=True, env={**os.environ, **env},
    )  # fmt: skip
    asked, returned = map(int, done.stdout.split())
    return asked, returned


def test_a_steps_memory_is_asked_for_once_and_returned_at_the_end():
    asked, returned = pages()
    assert asked < STEP / 20
    assert returned > STEP * 0.9


def test_switches_that_the_user_set_are_left_alone():
    asked, returned = pages(MALLOC_MMAP_MAX_="65536")
    assert asked > STEP / 4
    assert returned < STEP / 4
