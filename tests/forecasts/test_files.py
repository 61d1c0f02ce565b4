"""Files of forecasts: written once, wherever names lead, and read with care."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from planted import runs

import flops_fit
from flops_fit.errors import ArgumentError, FlopsFitWarning, StoreError, TableError
from flops_fit.fit_table import fit
from flops_fit.forecasts import making
from flops_fit.forecasts.files import LARGEST, gather, load_forecast, slug
from flops_fit.forecasts.record import to_json


@pytest.fixture(scope="module")
def fitted():
    return fit(runs(), num_draws=100, name="gpt")


@pytest.fixture
def result(fitted, tmp_path, monkeypatch):
    """A result, in a working folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return fitted


def test_a_forecast_goes_to_the_working_folder_and_is_read_back(result, tmp_path):
    made = result.forecast(1e15, note="ü")
    assert made.path == Path("forecasts", f"gpt-{made.id}.json")
    assert made.artifact == ""
    assert str(made.path) in str(made)
    assert flops_fit.load_forecast(made.path) == made
    assert [file.name for file in (tmp_path / "forecasts").iterdir()] == [made.path.name]


@pytest.mark.parametrize("path", ["mine.json", "a/b/mine.json", "there"])
def test_a_path_may_be_a_file_or_a_folder(result, tmp_path, path):
    (tmp_path / "there").mkdir()
    made = result.forecast(1e15, path=path)
    assert made.path == (Path(path) if path != "there" else Path(path, f"gpt-{made.id}.json"))
    assert load_forecast(made.path) == made


def test_a_forecast_is_never_overwritten(result):
    first = result.forecast(1e15, path="mine.json")
    with pytest.raises(ArgumentError, match=r"path: mine\.json exists, and .* never overwritten"):
        result.forecast(1e16, path="mine.json")
    assert load_forecast("mine.json") == first


def test_two_forecasts_of_one_second_are_two_files(result):
    made = [result.forecast(1e15) for _ in range(3)]
    assert len({each.path for each in made}) == 3
    assert len(gather("forecasts")) == 3


def test_the_same_forecast_at_the_same_moment_is_refused(result, monkeypatch):
    class Clock(making.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, 6, tzinfo=tz)

    monkeypatch.setattr(making, "datetime", Clock)
    assert result.forecast(1e15).id.startswith("20260102T030405-")
    with pytest.raises(ArgumentError, match="never overwritten"):
        result.forecast(1e15)
    result.forecast(1e15, note="another")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/root/.ssh", "a\nb\0c", "..", ".hidden", "<b>", "名" * 300, ""]
)
def test_names_stay_in_the_folder(result, tmp_path, name):
    named = replace(result.findings, meta={"name": name})
    made = flops_fit.Result(named).forecast(1e15)
    (file,) = (tmp_path / "forecasts").iterdir()
    assert file == tmp_path / made.path
    assert not file.name.startswith(".")
    assert load_forecast(file).name == name


@pytest.mark.parametrize(
    ("name", "part"), [("gpt-2 (small)", "gpt-2_small_"), ("../x", "_x"), ("...", ""), ("ü", "ü")]
)
def test_a_name_is_part_of_a_files(name, part):
    assert slug(name) == part


def test_a_folder_that_cannot_be_written_is_named(result, tmp_path):
    (tmp_path / "forecasts").write_text("a file")
    with pytest.raises(ArgumentError, match=r"path: the folder forecasts cannot be made: .*exists"):
        result.forecast(1e15)


def test_the_parent_run_gets_the_same_text(fitted, tmp_path):
    logged = {}

    def log(name, text):
        logged[name] = text
        return "s3://bucket/forecast.json"

    result = flops_fit.Result(fitted.findings, log)
    made = result.forecast(1e15, path=tmp_path)
    assert made.artifact == "s3://bucket/forecast.json"
    name = f"forecasts/{made.id}.json"
    assert logged == {name: made.path.read_text()} == {name: to_json(made)}


@pytest.mark.parametrize(
    "error", [StoreError("readonly database"), OSError("no"), ValueError("s3")]
)
def test_a_parent_run_that_cannot_be_written_is_a_warning(fitted, tmp_path, error):
    def log(forecast_id, text):
        raise error

    with pytest.warns(FlopsFitWarning, match="but not on the parent run of the sweep"):
        made = flops_fit.Result(fitted.findings, log).forecast(1e15, path=tmp_path)
    assert made.artifact == ""
    assert load_forecast(made.path) == made


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"{}", b" " * (LARGEST + 1)])
def test_what_is_no_forecast_is_refused_with_its_path(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TableError, match=r"a\.json (cannot be read|holds no forecast)"):
        load_forecast(path)


def test_a_folder_is_read_without_what_is_foreign(result):
    made = result.forecast(1e15)
    Path("forecasts", "notes.json").write_text("{}")
    Path("forecasts", "notes.txt").write_text("no JSON")
    with pytest.warns(FlopsFitWarning, match=r"left out, .*notes\.json holds no forecast"):
        assert gather("forecasts") == [made]


def test_forecasts_are_gathered_once_each_and_oldest_first(result):
    first, second = result.forecast(1e15), result.forecast(1e16)
    assert gather([second, first.path, "forecasts", str(second.path)]) == [first, second]


@pytest.mark.parametrize("given", [[], "empty", [3], None, 3, True])
def test_nothing_to_gather_is_an_error(result, given):
    Path("empty").mkdir()
    with pytest.raises(ArgumentError, match="forecasts: expected"):
        gather(given)


@pytest.mark.parametrize("path", [3, ["a.json"], b"a.json", "a\0b", "a" * 300, "a/" + "b" * 300])
def test_what_is_no_path_is_an_argument_error(result, path):
    with pytest.raises(ArgumentError, match="path: "):
        result.forecast(1e15, path=path)


@pytest.mark.parametrize("path", [None, 3, ["a.json"]])
def test_what_is_no_path_is_not_read(path):
    with pytest.raises(ArgumentError, match="path: expected the path of a forecast"):
        load_forecast(path)


@pytest.mark.parametrize("path", ["new/", "new/deep/", f"new{os.sep}"])
def test_a_path_that_ends_with_a_separator_is_a_folder(result, path):
    made = result.forecast(1e15, path=path)
    assert made.path == Path(path, f"gpt-{made.id}.json")


def test_a_byte_order_mark_is_no_change(result):
    made = result.forecast(1e15, path="a.json")
    Path("b.json").write_bytes(b"\xef\xbb\xbf" + made.path.read_bytes())
    assert load_forecast("b.json") == made


def test_a_sweep_that_was_loaded_from_files_is_not_told_silently(result, tmp_path):
    findings = replace(result.findings, meta={"name": "gpt", "setting": "ab"})
    flops_fit.Result(findings).save(tmp_path / "saved")
    made = flops_fit.Result.load(tmp_path / "saved").forecast(1e15)
    assert "not logged to the sweep: its result was loaded from files" in str(made)
    assert "not logged" not in str(load_forecast(made.path))
    assert "not logged" not in str(result.forecast(1e15))
