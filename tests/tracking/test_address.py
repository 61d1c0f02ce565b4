"""Which sweep and which stores are meant."""

import pytest

from flops_fit.errors import SweepError
from flops_fit.tracking.address import StoreAddress, local_folder


def test_all_that_is_wrong_with_it_is_listed():
    assert StoreAddress().problems() == []
    assert StoreAddress("a sweep", "http://host:5000").problems() == []
    name, uri = StoreAddress("", "a/folder").problems()
    assert name.startswith("name: expected a sweep name")
    assert uri.startswith("tracking_uri: 'a/folder' is not an address")


@pytest.mark.parametrize(
    ("address", "is_given"),
    [
        (StoreAddress(), False),
        (StoreAddress(storage="sqlite:///o.db"), False),
        (StoreAddress("a"), True),
        (StoreAddress(tracking_uri="m.db"), True),
    ],
)
def test_a_name_or_a_store_is_enough_to_look_in(address, is_given):
    assert address.is_given is is_given


def test_a_sweep_is_named_by_the_caller_else_by_its_default(store):
    address = StoreAddress(tracking_uri=f"sqlite:///{store}/mlflow.db")
    with pytest.raises(SweepError, match="no sweep named 'Net'"):
        address.find_ledger("Net")
    assert address.open_ledger("Net") == address.find_ledger("Net")
    named = StoreAddress("mine", address.tracking_uri)
    assert named.open_ledger("Net").name == "mine"


def test_the_study_lies_beside_the_ledger_unless_elsewhere(store, monkeypatch, tmp_path):
    address = StoreAddress("mine", f"sqlite:///{store}/mlflow.db")
    ledger = address.open_ledger("Net")
    assert address.storage_url(ledger) == f"sqlite:///{store}/optuna.db"
    elsewhere = StoreAddress("mine", address.tracking_uri, "postgresql://host/optuna")
    assert elsewhere.storage_url(ledger) == "postgresql://host/optuna"
    monkeypatch.setattr(type(ledger), "home", None)  # as of a server's
    monkeypatch.chdir(tmp_path)
    assert local_folder(ledger) == tmp_path / "mlruns"
    assert address.storage_url(ledger) == f"sqlite:///{tmp_path}/mlruns/optuna.db"
