import subprocess
import sys
import time

import psutil
import pytest

from flops_fit.runtime.process_id import _started, at_work, is_dead, lives_here

SAY_WHO = (
    "from flops_fit.runtime.process_id import at_work\nwith at_work() as o: print(o, flush=True)"
)


def test_an_owner_is_alive_until_its_work_is_done():
    with at_work() as owner, at_work() as other:
        assert owner != other
        assert not is_dead(owner)
        assert lives_here(owner)
    assert is_dead(owner)
    assert not lives_here(owner)


@pytest.mark.skipif(sys.platform != "linux", reason="where it is known when Linux started")
def test_a_changed_clock_makes_no_process_dead(monkeypatch):
    with at_work() as owner:
        parent = psutil.Process().parent()
        host = owner.split("|")[0]
        other = f"{host}|{parent.pid}|{_started(parent):.2f}|ab"
        started = psutil.boot_time()
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: started + 3600)
        assert lives_here(owner)
        assert lives_here(other)


def test_another_process_is_alive_then_a_zombie_then_gone():
    code = SAY_WHO.replace("print(o, flush=True)", "print(o, flush=True), input()")
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        owner = child.stdout.readline().strip()
        assert not is_dead(owner)
        child.kill()
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert is_dead(owner)  # killed, not yet waited for by its parent
        child.wait()
        assert is_dead(owner)


def test_a_number_given_to_another_process_is_not_its_former_owner():
    parent = psutil.Process().parent()
    with at_work() as owner:
        host = owner.split("|")[0]
    alive = f"{host}|{parent.pid}|{_started(parent):.2f}|ab"
    former = f"{host}|{parent.pid}|{_started(parent) - 60:.2f}|ab"
    assert not is_dead(alive)
    assert is_dead(former)


@pytest.mark.parametrize("owner", ["", "elsewhere", "elsewhere.org|1|1.00|ab"])
def test_nothing_is_known_of_other_hosts(owner):
    assert not is_dead(owner)
