"""The report: what users name stays text, what is refused is not shown, what is shown is so."""

import base64
import hashlib
import json
import re

import numpy as np
import pandas as pd
import pytest
from planted import BUDGETS, LAW, runs

from flops_fit.errors import FitError
from flops_fit.laws.simulate import simulate_isoflop
from flops_fit.report import page
from flops_fit.result import fit

HOSTILE = "</script><img src=x onerror=alert(1)>\"'{{7*7}}"


def curves_of(table):
    """A falling curve of three points a run."""
    rows = [
        {"trial_id": run.trial_id, "num_tokens": run.num_tokens * share, "loss": run.loss * more}
        for run in table.itertuples()
        for share, more in ((0.1, 1.3), (0.5, 1.1), (1.0, 1.0))
    ]
    return pd.DataFrame(rows).assign(ended=lambda points: points.index % 3 == 2)


@pytest.fixture(scope="module")
def hostile():
    """A sweep on a measured cost whose every name would break out of the page."""
    table = runs()
    f = 6 * table["num_params"] + 900 * table["num_params"] ** 0.5
    table = table.assign(
        flops=f * table["num_tokens"],
        size=np.sqrt(table["num_params"]).round().astype(int),
        trial_id=[f"{HOSTILE}{i}" for i in range(len(table))],
    )
    table["compute_budget"] = table["flops"]
    failed = {**table.iloc[0], "state": "failed", "excluded": HOSTILE, "loss": np.nan}
    table = pd.concat([table, pd.DataFrame([failed])], ignore_index=True)
    meta = dict.fromkeys(
        ("model", "size_param", "data_unit", "recipe", "setting", "where_to_look"), HOSTILE
    )
    finished = table[np.isfinite(table["loss"])]
    return fit(table, name=HOSTILE, meta=meta, curves=curves_of(finished))


@pytest.fixture(scope="module")
def text(hostile):
    return page.page(hostile)


def embedded(text):
    """The data of the page's script."""
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(data)


def test_hostile_names_stay_text(hostile, text):
    assert text.count("</script") == 2  # the data's and the script's own
    assert len(re.findall(r"<img[ >]", text)) == len(re.findall('<img src="data:image/svg', text))
    assert not re.findall(r"<[^>]*\son\w+=", text)
    assert "49" not in re.findall(r"<h1>(.*)</h1>", text)[0]
    assert embedded(text)["words"] == {"unit": HOSTILE, "size": HOSTILE}
    for image in re.findall("base64,([A-Za-z0-9+/=]+)", text):
        svg = base64.b64decode(image).decode()
        assert "<script" not in svg
        assert "<img" not in svg


def test_the_policy_allows_the_script_and_the_style_and_nothing_else(text):
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', text)
    allowed = dict(re.findall(r"(\w+)-src '(sha256-[^']+)'", policy))
    for kind in ("script", "style"):
        (body,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert allowed[kind] == f"sha256-{digest}"
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)


def test_the_page_holds_what_the_result_says(hostile, text):
    words = re.sub("<[^>]*>", " ", text)
    for check in hostile.checks:
        assert check.message.split("<")[0] in words
    assert text.count('<img src="data:') == 8
    assert len(text) < 1.5e6
    assert "35 runs" not in words  # one of 36 was left out
    row = hostile.chinchilla_table().iloc[0]
    assert f"<td>{row['tokens_per_param']:.3g}</td>" in text


def test_refusals_are_honoured(tmp_path):
    rough = fit(simulate_isoflop(LAW, BUDGETS, noise=0.05, half_width=0.4, seed=2))
    text = rough.report(tmp_path / "report.html").read_text()
    grid = embedded(text)["grid"]
    assert max(grid["c"]) == pytest.approx(np.log(1.1 * rough.largest_budget))
    assert not grid["beyond"]
    with pytest.raises(FitError) as caught:
        rough.predict(2 * rough.largest_budget)
    assert str(caught.value) in text
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


def test_without_a_law_nothing_is_shown():
    text = page.page(fit(runs().iloc[:7]))
    assert embedded(text)["grid"] is None
    assert "Nothing can be said" in text
    assert 'id="slider"' not in text
    assert "the parametric law needs 8" in text
