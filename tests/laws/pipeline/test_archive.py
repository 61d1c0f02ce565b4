import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from named_laws import LAWS, bent
from planted import BUDGETS, runs
from recipes import with_pilot

from flops_fit.laws.pipeline import archive
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.result import Result, fit

STORED = Path(__file__).parents[2] / "stored" / "archive"


def test_an_archive_of_an_older_version_is_read(tmp_path):
    """Older versions also stored intervals of k and l_inf with each power law."""
    findings = fit(runs(), num_draws=100).findings
    archive.save(tmp_path, findings, {"name": "planted"})
    path = tmp_path / "result.json"
    document = json.loads(path.read_text())
    for law in document["power_laws"].values():
        law |= {"k_interval": [1.0, 2.0], "l_inf_interval": [0.0, 0.0]}
    path.write_text(json.dumps(document))
    loaded, meta = archive.load(tmp_path)
    assert loaded.power_laws == findings.power_laws
    assert meta == {"name": "planted"}


def test_a_bent_law_is_archived(tmp_path):
    table = simulate_isoflop(bent(LAWS["small"][0]), BUDGETS, noise=0.002, seed=3)
    result = fit(table, num_draws=100)
    assert result.fits["headline"].form == "bent"
    result.save(tmp_path)
    again = Result.load(tmp_path)
    assert again.law == result.law
    assert again.intervals.loc["gamma"].tolist() == result.intervals.loc["gamma"].tolist()
    assert again.predict(1e15) == result.predict(1e15)
    header = (tmp_path / "draws-0-wild.csv").read_text().splitlines()[0]
    assert header == "E,log_A,log_B,alpha,beta,gamma"


@pytest.mark.parametrize("rates", [(), ("fading",), ("fading", "params_fading")])
def test_an_archive_without_gamma_is_read(tmp_path, rates):
    """Schema 1: law vectors of five elements, and of six or seven with constants of repetition."""
    shutil.copytree(STORED, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "result.json"
    document = json.loads(path.read_text())
    assert document["schema"] == 1
    (spread,) = document["spreads"]
    size = 5 + len(rates)
    spread["centre"] += [0.1] * len(rates)
    covariance = np.eye(size)
    covariance[:5, :5] = spread["covariance"]
    spread["covariance"] = covariance.tolist()
    for rate in rates:
        document["columns"]["draws-0-wild"][rate] = "float"
    path.write_text(json.dumps(document))
    draws = tmp_path / "draws-0-wild.csv"
    head, *rows = draws.read_text().splitlines()
    lines = [",".join([head, *rates]), *(",".join([row, *["0.1"] * len(rates)]) for row in rows)]
    draws.write_text("\n".join(lines) + "\n")
    (loaded,) = archive.load(tmp_path)[0].spreads
    assert loaded.centre.shape == (size + 1,)
    assert loaded.centre[5] == 1
    assert not loaded.covariance[5].any()
    np.testing.assert_array_equal(np.delete(loaded.covariance, 5, 0)[:, :5], covariance[:, :5])
    assert (loaded.draws["wild"][:, 5] == 1).all()
    assert (loaded.draws["wild"][:, 6:] == 0.1).all()


def test_a_recipe_law_is_archived_and_older_archives_have_none(tmp_path):
    result = fit(with_pilot(), meta={"tokens_per_example": "16"}, num_draws=100)
    result.save(tmp_path)
    again = Result.load(tmp_path)
    assert again.recipe_law == result.recipe_law
    assert again.runs["role"].tolist() == result.runs["role"].tolist()
    assert again.predict(1e15) == result.predict(1e15)
    path = tmp_path / "result.json"
    document = json.loads(path.read_text())
    del document["recipe_law"]
    path.write_text(json.dumps(document))
    assert Result.load(tmp_path).recipe_law is None
    assert Result.load(STORED).recipe_law is None
