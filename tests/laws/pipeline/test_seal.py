"""Archives that are reopened in place of a fit: only if all is as it was."""

import json

import pandas as pd
import pytest
from planted import runs

from flops_fit.laws.pipeline import seal
from flops_fit.result import Result, fit

META = {"name": "a", "data_unit": "tokens"}


@pytest.fixture(scope="module")
def result():
    return fit(runs(), num_draws=100, meta=META)


@pytest.fixture
def folder(result, tmp_path):
    result.save(tmp_path)
    seal.seal(tmp_path, "key", "shown")
    return tmp_path


def test_what_is_opened_is_what_was_fitted(folder, result):
    kept = seal.open_sealed(folder, "key")
    again = Result(kept.findings)
    assert kept.shown == "shown"
    assert again.checks == result.checks
    assert again.law == result.law
    assert again.recipe_law == result.recipe_law
    pd.testing.assert_frame_equal(
        again.chinchilla_table(), result.chinchilla_table(), check_exact=True
    )
    assert repr(again.predict(1e16)) == repr(result.predict(1e16))


def _edit(path):
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / seal.SEAL).unlink(),
        lambda folder: (folder / seal.SEAL).write_text("{"),
        lambda folder: (folder / seal.SEAL).write_text("[]"),
        lambda folder: (folder / seal.SEAL).write_text('{"key": "key", "shown": "", "files": {}}'),
        lambda folder: (folder / "runs.csv").unlink(),
        lambda folder: _edit(folder / "runs.csv"),
        lambda folder: _edit(folder / "result.json"),
    ],
    ids=["no seal", "half a seal", "a list", "no files", "a file less", "runs", "laws"],
)
def test_a_changed_archive_is_not_opened(folder, change):
    change(folder)
    assert seal.open_sealed(folder, "key") is None


def test_files_outside_the_folder_are_never_read(folder):
    outside = folder.parent / "outside"
    outside.write_text("x")
    stored = json.loads((folder / seal.SEAL).read_text())
    stored["files"]["../outside"] = seal._hash_of_file(outside)
    (folder / seal.SEAL).write_text(json.dumps(stored))
    assert seal.open_sealed(folder, "key") is None


def test_files_that_an_earlier_analysis_left_do_not_matter(folder):
    (folder / "draws-9-pairs.csv").write_text("of an earlier analysis")
    assert seal.open_sealed(folder, "key") is not None


def test_another_key_opens_nothing(folder):
    assert seal.open_sealed(folder, "other") is None


def test_the_key_is_that_of_the_same_runs_and_metadata_alone(monkeypatch):
    table = runs()
    key = seal.key_of(table, META)
    assert seal.key_of(table.copy(), dict(reversed(META.items()))) == key
    changed = table.assign(loss=table["loss"].where(table.index != 3, table["loss"] * (1 + 1e-15)))
    assert seal.key_of(changed, META) != key
    assert seal.key_of(table.iloc[:-1], META) != key
    assert seal.key_of(pd.concat([table, table.iloc[:1]]), META) != key
    assert seal.key_of(table, {**META, "data_unit": "examples"}) != key
    monkeypatch.setattr(seal, "source_digest", lambda: "another version")
    assert seal.key_of(table, META) != key
