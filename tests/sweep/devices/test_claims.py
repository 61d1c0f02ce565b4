"""Shares of a device: who has it, who waits, and what becomes of a dead worker's."""

import json
import math
import signal
import socket
import sys
import threading

import pytest
from processes import wait_until

from flops_fit.errors import StoreError
from flops_fit.runtime.process_id import at_work
from flops_fit.sweep.devices import claims
from flops_fit.sweep.devices.claims import check_claims, holders, share_claimed


class GaveUpError(Exception):
    """Raised by the first pause: whoever raises it would have waited."""


def give_up():
    raise GaveUpError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "devices" / "one.json"


@pytest.fixture
def claim(file):
    """A function that claims a share for a worker, and gives up where it would have to wait."""
    return lambda owner, share: share_claimed(file, owner, share, before_pause=give_up)


@pytest.fixture
def workers():
    with at_work() as one, at_work() as two, at_work() as three:
        yield one, two, three


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.1, 0.9), (1 / 3, 1 / 3, 1 / 3)])
def test_what_fits_together_is_trained_side_by_side(file, claim, workers, shares):
    with claim(workers[0], shares[0]), claim(workers[1], shares[1]):
        if len(shares) == 3:
            with claim(workers[2], shares[2]):
                assert holders(file) == set(workers)
        assert holders(file) == set(workers[:2])
    assert holders(file) == set()


@pytest.mark.parametrize(("first", "second"), [(1.0, 0.01), (0.6, 0.5), (0.01, 1.0)])
def test_what_does_not_fit_waits_and_leaves_no_claim_if_it_gives_up(
    file, claim, workers, first, second
):
    one, two, _ = workers
    with claim(one, first):
        with pytest.raises(GaveUpError), claim(two, second):
            pass
        assert holders(file) == {one}
    with claim(two, second):
        assert holders(file) == {two}


def test_a_large_trial_that_waits_is_not_passed_over(file, claim, workers, monkeypatch):
    one, large, small = workers
    monkeypatch.setattr(claims, "PAUSE_S", 1e-3)
    waits, has_it, done = (threading.Event() for _ in range(3))

    def train_large():
        with share_claimed(file, large, 1.0, before_pause=waits.set):
            has_it.set()
            done.wait()

    thread = threading.Thread(target=train_large)
    with claim(one, 0.2):
        thread.start()
        waits.wait()
        with pytest.raises(GaveUpError), claim(small, 0.2):  # it would fit now
            pass
    has_it.wait()
    assert holders(file) == {large}
    done.set()
    thread.join()
    assert holders(file) == set()


def test_an_error_in_the_trial_hands_its_share_back(file, claim, workers):
    with pytest.raises(ZeroDivisionError), claim(workers[0], 1.0):
        raise ZeroDivisionError
    assert holders(file) == set()


@pytest.mark.parametrize("dead", ["{host}|4000000|1.00|abcdef01", "{host}|{own}|1.00|abcdef01"])
def test_the_claim_of_a_dead_worker_is_dropped(file, claim, workers, dead):
    import os

    owner = dead.format(host=socket.gethostname(), own=os.getpid())
    file.parent.mkdir()
    file.write_text(json.dumps([{"owner": owner, "share": 1.0}]))
    with claim(workers[0], 1.0):
        assert holders(file) == {workers[0]}


@pytest.mark.slow
@pytest.mark.parametrize("where", ["holding", "waiting", "writing"])
def test_a_worker_that_is_killed_lets_go(file, claim, workers, start, where):
    """Also of the lock: it is killed between its lock and its write."""
    code = f"""
import sys, time
from pathlib import Path
from flops_fit.runtime.process_id import at_work
from flops_fit.sweep.devices import claims
def wait():
    print("there", flush=True)
    time.sleep(1000)
if {where!r} == "writing":
    claims.atomic_write = lambda *_, **__: wait()
with at_work() as me, claims.share_claimed(Path({str(file)!r}), me, 1.0, before_pause=wait):
    wait()
"""

    def killed():
        process = start(sys.executable, "-c", code)
        wait_until(lambda: "there" in process.output or process.poll() is not None, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.output

    if where == "waiting":
        with claim(workers[0], 1.0):
            killed()
            assert holders(file) == {workers[0]}
    else:
        killed()
    with claim(workers[1], 1.0):
        assert holders(file) == {workers[1]}


@pytest.mark.parametrize(
    "content",
    [
        *["", "{", "[1]", '[{"owner": "a"}]', '{"a": 1}', "null", "[null]", "7"],
        *[
            json.dumps([{"owner": owner, "share": share}])
            for owner, share in [
                (5, 1.0),
                ("vm|12", 1.0),
                (f"{socket.gethostname()}|12", 1.0),
                (f"{socket.gethostname()}|12|x|y", 1.0),
                ("vm|1|1.00|a", "1"),
                ("vm|1|1.00|a", -5),
                ("vm|1|1.00|a", 9.0),
                ("vm|1|1.00|a", math.nan),
                ("vm|1|1.00|a", None),
            ]
        ],
    ],
)
def test_a_file_that_somebody_has_spoilt_is_begun_anew(file, claim, workers, content):
    file.parent.mkdir()
    file.write_text(content)
    with claim(workers[0], 1.0):
        assert holders(file) == {workers[0]}


def test_beside_what_is_no_claim_the_others_hold(file, claim, workers):
    with claim(workers[0], 0.6):
        entries = json.loads(file.read_text())
        file.write_text(json.dumps([{"owner": 5, "share": 1.0}, *entries]))
        with pytest.raises(GaveUpError), claim(workers[1], 0.6):
            pass
        assert holders(file) == {workers[0]}


def test_a_folder_of_claims_is_checked_without_a_claim(tmp_path):
    check_claims(tmp_path / "devices")
    assert holders(tmp_path / "devices" / "check.json") == set()
    (tmp_path / "spoilt").write_text("a file in its place")
    with pytest.raises(StoreError, match="cannot be kept in"):
        check_claims(tmp_path / "spoilt")


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path, workers):
    (tmp_path / "devices").write_text("a file in its place")
    with (
        pytest.raises(StoreError, match=r"claims .* cannot be kept in .*that this user can write"),
        share_claimed(tmp_path / "devices" / "one.json", workers[0], 1.0, before_pause=give_up),
    ):
        pass
