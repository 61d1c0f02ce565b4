"""Paths and addresses: a folder's name never leads to another folder's store."""

import os
from pathlib import Path

import mlflow
import optuna
import pytest
from sqlalchemy import create_engine, make_url

from flops_fit.errors import ArgumentError
from flops_fit.store import uri

NASTY = [
    "My%20Project", "what?", "a?b=c", "#1", "a b", "a&b", "a+b", "~", "~me", "naïve 数据", "-rf",
    "12:30", "50%", "100%25", "{SCHEMA_VERSION}", "{}", "a@b", "a'b", 'a"b', "a;b", "a\nb", "[x]",
    "a\\b", "a%2Fb", "%", "$HOME", "*",
]  # fmt: skip


@pytest.mark.parametrize("name", NASTY)
def test_a_path_is_its_url_and_back(tmp_path, monkeypatch, name):
    folder = tmp_path / name
    folder.mkdir()
    file = folder / "m.db"
    url = uri.sqlite_url(file)
    assert uri.sqlite_file(url) == file
    assert uri.sqlite_folder(url) == folder
    assert make_url(url).database == str(file)  # as SQLAlchemy reads it
    assert uri.without_credentials(url) == url
    for given in (file, str(file), url):
        assert uri.check_uri(given) == uri.check_storage(given) == url
    monkeypatch.chdir(folder)
    for relative in (
        "m.db",
        Path("m.db"),
        "sqlite:///m.db",
        "./m.db",
        f"file://{file.as_uri()[7:]}",
    ):
        assert uri.check_uri(relative) == url
    assert uri.sqlite_file(uri.resolve_uri()) == folder / "mlruns/mlflow.db"
    create_engine(url).connect().close()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["m.db"]


@pytest.mark.parametrize("name", NASTY)
def test_a_path_put_into_a_url_as_it_is_means_itself(tmp_path, name):
    (tmp_path / name).mkdir()
    file = tmp_path / name / "m.db"
    assert uri.sqlite_file(uri.check_uri(f"sqlite:///{file}")) == file


@pytest.mark.parametrize("query", ["?timeout=30", "?timeout=30&cached_statements=5"])
def test_a_query_is_kept(tmp_path, query):
    url = uri.check_storage(f"sqlite:///{tmp_path}/m.db{query}")
    assert url == f"sqlite:///{tmp_path}/m.db{query}"
    assert uri.sqlite_file(url) == tmp_path / "m.db"


def test_of_two_readings_that_both_exist_none_is_guessed(tmp_path):
    for name in ("My Project", "My%20Project"):
        (tmp_path / name).mkdir()
    url = f"sqlite:///{tmp_path}/My%20Project/mlruns/m.db"
    with pytest.raises(ArgumentError, match="both folders exist; pass the path itself") as caught:
        uri.check_uri(url)
    assert str(caught.value).startswith("tracking_uri: ")
    assert (
        uri.sqlite_file(uri.check_uri(url.removeprefix("sqlite:///"))).parts[-3] == "My%20Project"
    )
    (tmp_path / "My%20Project").rmdir()
    assert uri.sqlite_file(uri.check_uri(url)) == tmp_path / "My Project/mlruns/m.db"


def test_mlflow_makes_no_folder_beside_the_one_with_a_percent_sign(tmp_path):
    from mlflow.store.db.utils import _make_parent_dirs_if_sqlite

    (tmp_path / "50%").mkdir()
    _make_parent_dirs_if_sqlite(uri.sqlite_url(tmp_path / "50%" / "m.db"))
    assert os.listdir(tmp_path) == ["50%"]


def test_mlflows_own_setting_is_read_as_a_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///a b/m.db")
    assert mlflow.is_tracking_uri_set()
    assert uri.sqlite_file(uri.resolve_uri()) == tmp_path / "a b/m.db"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (optuna.storages.InMemoryStorage(), "got Optuna's InMemoryStorage.*: pass a URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("http://host:5000", "'http://host:5000' is not the URL of a database"),
        ("redis://me:secret@host/0", r"'redis://host/0' is not the URL of a database"),
        ("mlruns", r"'mlruns' is not an address; .*pass 'mlruns/optuna.db'"),
        ("", "expected the URL of a database"),
        (3, "expected the URL of a database.* got 3"),
    ],
)
def test_what_is_no_storage_is_refused_with_what_to_pass(given, words):
    with pytest.raises(ArgumentError, match=f"^storage: .*{words}") as caught:
        uri.check_storage(given)
    assert "secret" not in str(caught.value)


def test_a_storage_object_that_has_a_url_says_it(tmp_path):
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/o.db")
    with pytest.raises(
        ArgumentError, match=rf"RDBStorage.*pass its URL, 'sqlite:///{tmp_path}/o.db'"
    ):
        uri.check_storage(storage)


def test_a_name_that_is_not_utf8_is_refused():
    with pytest.raises(ArgumentError, match="is not UTF-8"):
        uri.sqlite_url(Path(os.fsdecode(b"/a\xff/m.db")))
