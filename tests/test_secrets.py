"""Planted secrets never show up in a store, an artifact, a log or the journal."""

import logging
import stat

import pytest
from sweeps import SMALL_BUDGETS, SMALL_SIZES, Net, Planted, data
from torch import nn

import flops_fit
from flops_fit import store as stores
from flops_fit import tracking
from flops_fit.errors import StoreError
from flops_fit.sweep.execution import worker

CANARY = "canary-7f3a9b"


class Keyed(nn.Module):
    """A model that is given a password and keeps it."""

    def __init__(self, width: int, api_key: str = "", password: str = "") -> None:
        super().__init__()
        self.net, self.api_key, self.password = Net(width), api_key, password

    def forward(self, x):
        return self.net(x)

    def num_params(self):
        return self.net.num_params()


@pytest.mark.slow
def test_secrets_of_environment_and_arguments_are_written_nowhere(
    store, monkeypatch, capfd, caplog
):
    caplog.set_level(logging.DEBUG, "flops_fit")
    monkeypatch.setenv("SOME_TOKEN", CANARY)
    monkeypatch.chdir(store)
    monkeypatch.setattr(worker, "train", Planted())
    flops_fit.find_optimal(
        Keyed, "width", {"api_key": CANARY, "password": CANARY}, data(),
        nn.functional.cross_entropy, SMALL_BUDGETS, sizes=SMALL_SIZES,
        recipe=flops_fit.Recipe(max_epochs=1e9, pilot=False), name="secrets",
        tracking_uri=f"sqlite:///{store}/mlflow.db",
    )  # fmt: skip
    said = "".join(capfd.readouterr()) + caplog.text
    assert "[1/" in said
    assert CANARY not in said
    files = [path for path in store.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    "uri",
    [
        f"postgresql://me:{CANARY}@127.0.0.1:9/db",
        f"postgresql://127.0.0.1:9/db?user=me&password={CANARY}",
        f"http://me:{CANARY}@127.0.0.1:9",
    ],
)
def test_the_password_of_an_address_is_not_told(uri):
    ledger = tracking.Ledger("a", uri, "1", "2")
    assert CANARY not in stores.without_credentials(uri)
    assert CANARY not in ledger.where_to_look()
    with pytest.raises(StoreError) as caught, stores.store_errors(uri):
        raise OSError(f"cannot reach {uri}")
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


def test_locks_and_checkpoints_are_their_owner_s_alone(store):
    with stores.exclusive(f"sqlite:///{store}/new/mlflow.db"):
        (lock,) = (store / "new").glob(".flops_fit*")
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
