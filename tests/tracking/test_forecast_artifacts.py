"""Forecasts among the artifacts of a parent run: beside a SQLite store, and on a server."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from flops_fit import tracking
from flops_fit.errors import StoreError
from flops_fit.tracking import artifacts


@pytest.fixture
def ledger(store):
    return tracking.open_ledger("a", f"sqlite:///{store}/mlflow.db")


def test_a_sweep_without_forecasts_has_none(ledger):
    assert tracking.fetch_forecasts(ledger) == {}


def test_what_is_logged_is_fetched(ledger, store):
    for name in ("20260101T000000-a", "20260101T000000-b"):
        address = tracking.log_text(ledger, f"forecasts/{name}.json", f"ü {name}")
        assert Path(address).read_text(encoding="utf-8") == f"ü {name}"
        assert Path(address).is_relative_to(store / "artifacts")
    fetched = tracking.fetch_forecasts(ledger)
    assert list(fetched) == ["20260101T000000-a.json", "20260101T000000-b.json"]
    assert fetched["20260101T000000-b.json"] == "ü 20260101T000000-b"


def test_a_later_analysis_keeps_them(ledger, tmp_path):
    tracking.log_text(ledger, "forecasts/one.json", "{}")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "report.html").write_text("a report")
    tracking.log_analysis(ledger, tmp_path / "new", {})
    assert tracking.fetch_forecasts(ledger) == {"one.json": "{}"}


class Server:
    """A client of a server whose artifacts are not local files."""

    def __init__(self, texts):
        self.texts = texts

    def get_run(self, run_id):
        return SimpleNamespace(info=SimpleNamespace(artifact_uri="mlflow-artifacts:/1/2/artifacts"))

    def list_artifacts(self, run_id):
        return [SimpleNamespace(path="forecasts")] if self.texts else []

    def download_artifacts(self, run_id, folder, to):
        place = Path(to, folder)
        place.mkdir()
        for name, text in self.texts.items():
            (place / name).write_bytes(text)
        return str(place)

    def log_text(self, run_id, text, name):
        self.texts[Path(name).name] = text.encode()


@pytest.mark.parametrize(
    ("texts", "fetched"),
    [
        ({}, {}),
        ({"b.json": b"2", "a.json": b"1", "c.txt": b"3"}, {"a.json": "1", "b.json": "2"}),
        ({"a.json": b"\xff"}, {"a.json": "\ufffd"}),
    ],
)
def test_forecasts_of_a_server_are_downloaded(ledger, monkeypatch, texts, fetched):
    monkeypatch.setattr(artifacts, "client_of", lambda uri: Server(texts))
    assert tracking.fetch_forecasts(ledger) == fetched


def test_a_server_is_told_and_its_address_given(ledger, monkeypatch):
    server = Server({})
    monkeypatch.setattr(artifacts, "client_of", lambda uri: server)
    address = tracking.log_text(ledger, "forecasts/one.json", "{}")
    assert address == "mlflow-artifacts:/1/2/artifacts/forecasts/one.json"
    assert server.texts == {"one.json": b"{}"}


def test_a_server_that_refuses_is_a_store_error(ledger, monkeypatch):
    def refuse(uri):
        raise PermissionError("Permission denied")

    monkeypatch.setattr(artifacts, "client_of", refuse)
    with pytest.raises(StoreError, match="Permission denied"):
        tracking.log_text(ledger, "forecasts/one.json", "{}")
