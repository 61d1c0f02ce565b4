"""The report: names stay text, refused predictions are absent, numbers are those of `Result`."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from chromium import browser, installed
from planted import BUDGETS, LAW, runs
from recipes import with_pilot

from flops_fit.errors import FitError
from flops_fit.forecasts.making import make_forecast
from flops_fit.forecasts.scoring import outcomes_in
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.report import html_page
from flops_fit.report.plots.panels import figures
from flops_fit.result import Result, fit

NONE = html_page.Plots({}, {})
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
    return fit(table, name=HOSTILE, meta=meta, curves=curves_of(finished), num_draws=100)


@pytest.fixture
def without_slider(monkeypatch):
    """Its numbers take seconds."""
    monkeypatch.setattr(html_page, "_grid", lambda findings: None)


@pytest.fixture(scope="module")
def text(hostile):
    return html_page.page(hostile.findings)


def embedded(text):
    """The data of the page's script."""
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(data)


def test_hostile_names_stay_text(hostile, text):
    assert text.count("</script") == 2  # the data's and the script's own
    assert len(re.findall(r"<img[ >]", text)) == len(re.findall('<img src="data:image/', text))
    assert not re.findall(r"<[^>]*\son\w+=", text)
    assert "49" not in re.findall(r"<h1>(.*)</h1>", text)[0]
    assert embedded(text)["labels"] == {"unit": HOSTILE, "size": HOSTILE, "no_loss": ""}
    for image in re.findall("svg.xml;base64,([A-Za-z0-9+/=]+)", text):
        svg = base64.b64decode(image).decode()
        assert "<script" not in svg
        assert "<img" not in svg


@pytest.mark.usefixtures("without_slider")
def test_forecasts_are_listed_and_their_words_stay_text(hostile, text):
    """The note, the name, the unit and the reason of an exclusion are a user's."""
    forecasts = [
        make_forecast(hostile.findings, 1e15, note=HOSTILE),
        make_forecast(hostile.findings, num_params=1e5, num_tokens=1e9),
    ]
    row = {"num_params": 1e5, "num_tokens": 1e9, "loss": 2.3, "excluded": HOSTILE}
    came = pd.concat([hostile.runs, pd.DataFrame([row])], ignore_index=True)
    table = outcomes_in(forecasts, replace(hostile.findings, runs=came))
    found = replace(hostile.findings, forecasts=table)
    page = html_page.page(found, NONE)
    # The section can be replaced without the rest, both ways.
    assert html_page.with_forecasts(html_page.page(hostile.findings, NONE), found) == page
    assert html_page.with_forecasts(page, found) == page
    section = page.partition('id="forecasts-head"')[2].partition("</section>")[0]
    assert section.count("<tr>") == 3
    assert "not yet run" in section
    assert "run, but left out" in section
    assert not re.findall(r"<(img|script)", section)
    assert "forecasts-head" not in text


def test_a_plot_of_very_many_points_is_a_png(hostile, monkeypatch):
    _, figure = figures(hostile.findings)["backtest"]
    monkeypatch.setattr(html_page, "figures", lambda result: {"backtest": ("a title", figure)})
    assert html_page.draw(hostile.findings).drawn["backtest"].kind == "svg"
    monkeypatch.setattr("flops_fit.display.page.LARGEST_SVG", 0)
    drawing = html_page.draw(hostile.findings).drawn["backtest"]
    assert drawing.content.startswith(b"\x89PNG")
    assert drawing.data_uri.startswith("data:image/png;base64,")


def test_the_policy_allows_the_script_and_the_style_and_nothing_else(text):
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', text)
    allowed = dict(re.findall(r"(\w+)-src '(sha256-[^']+)'", policy))
    for kind in ("script", "style"):
        (body,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert allowed[kind] == f"sha256-{digest}"
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)


def test_the_page_has_the_checks_plots_and_table_of_the_result(hostile, text):
    words = re.sub("<[^>]*>", " ", text)
    for check in hostile.checks:
        assert check.message.split("<")[0] in words
    assert text.count('<img src="data:') == 8
    assert len(text) < 1.5e6
    assert "35 runs" not in words  # one of 36 was left out
    row = hostile.chinchilla_table().iloc[0]
    assert f"<td>{row['tokens_per_param']:.3g}</td>" in text


@pytest.mark.slow
def test_refusals_are_honoured():
    rough = fit(simulate_isoflop(LAW, BUDGETS, noise=0.05, half_width=0.4, seed=2))
    text = html_page.page(rough.findings, NONE)
    grid = embedded(text)["grid"]
    assert max(grid["c"]) == pytest.approx(np.log(1.1 * rough.largest_budget))
    assert not grid["beyond"]
    with pytest.raises(FitError) as caught:
        rough.predict(2 * rough.largest_budget)
    assert str(caught.value) in text


def test_without_a_law_there_is_no_slider(tmp_path):
    text = fit(runs().iloc[:7]).report(tmp_path / "report.html").read_text()
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]
    assert embedded(text)["grid"] is None
    assert 'id="slider"' not in text
    assert "No prediction" in text
    assert "the parametric law needs 8" in text


def plain(text):
    """The words of a page."""
    return " ".join(re.sub("<[^>]*>", " ", text.partition("<main>")[2]).split())


@pytest.mark.usefixtures("without_slider")
def test_missing_plots_and_fits_are_listed_with_the_reason(hostile):
    few = fit(runs().iloc[:3])
    text = plain(html_page.page(few.findings))
    assert re.search(r"Not drawn: training curves .* no training curves", text, re.IGNORECASE)
    assert re.search(r"Not drawn: loss to expect.* L_opt", text)
    assert re.search(r"Envelope .* not fitted, .* no training curves", text)
    drawn = replace(few.findings, curves=curves_of(few.runs))
    assert re.search(r"Envelope .* only drawn", plain(html_page.page(drawn, NONE)))
    whole = plain(html_page.page(hostile.findings, NONE))
    assert "Not drawn" not in whole
    assert re.search(r"Envelope .* see the checks", whole)


@pytest.mark.usefixtures("without_slider")
def test_without_a_name_the_page_is_called_by_what_it_holds():
    text = html_page.page(fit(runs()).findings, NONE)
    assert "<h1>35 runs at 5 budgets</h1>" in text
    assert "<title>35 runs at 5 budgets: scaling laws</title>" in text


@pytest.mark.usefixtures("without_slider")
def test_a_long_table_does_not_push_the_plots_away():
    assert 'class="scroll tall"' not in html_page.page(fit(runs()).findings, NONE)
    many = simulate_isoflop(LAW, np.geomspace(1e12, 1e14, 20), num_sizes=4)
    text = html_page.page(fit(many, num_draws=100).findings, NONE)
    assert 'class="scroll tall"' in text
    assert "23 rows: scroll." in text


COUNTS, UNDER_A_CAP = 0.005, 0.02  # as the page says of itself
LOSS = {COUNTS: 0.0005, UNDER_A_CAP: 0.001}
EXACT = 1e-6
ENDS = 0.25  # of the interval's width: another method may become the wider between two stops


def shown(page):
    """What the page shows: values and intervals by name, and its doubts."""
    numbers = page.run(
        "['n', 'd', 'loss'].map((id) => [id, document.getElementById(id).dataset.value ?? '',"
        " document.getElementById(`${id}-between`).dataset.value ?? ''])"
    )
    doubts = page.run("[...document.querySelectorAll('#doubts li')].map((li) => li.textContent)")
    values = {name: float(value) for name, value, _ in numbers if value}
    ends = {name: [float(end) for end in both.split()] for name, _, both in numbers if both}
    size = page.run("document.getElementById('size').textContent")
    return values, ends, doubts, size


def assert_as_predicted(page, expected, counts=COUNTS):
    """The page shows a prediction, N and D to this tolerance; its doubts."""
    values, ends, doubts, size = shown(page)
    loss = LOSS.get(counts, counts)
    for name, attribute, tolerance in (
        ("n", "num_params", counts), ("d", "num_tokens", counts), ("loss", "loss", loss)
    ):  # fmt: skip
        assert values[name] == pytest.approx(getattr(expected, attribute), rel=tolerance), name
        low, high = getattr(expected, f"{attribute}_interval")
        slack = tolerance * high + (ENDS * (high - low) if counts > EXACT else 0)
        assert ends[name] == pytest.approx([low, high], abs=slack), name
    assert int(size) == pytest.approx(expected.size, rel=counts, abs=int(counts > EXACT))
    return doubts


def without_a_loss():
    """A page of two optima alone, which give N and D."""
    table = runs().iloc[:21].copy()
    table.loc[3, "loss"] = 1e9
    return html_page.page(fit(table).findings, NONE)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(installed() is None, reason="no Chromium is installed")
def test_the_page_in_a_browser(hostile, text, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(text)
    largest = hostile.largest_budget
    with browser(tmp_path / "profile") as page:
        page.open(path)
        assert page.run("document.querySelector('h1').textContent") == HOSTILE
        assert page.run("document.title") == f"{HOSTILE}: scaling laws"
        assert page.run("document.querySelectorAll('script, img:not([src^=data])').length") == 2
        assert_as_predicted(page, hostile.predict(largest), counts=EXACT)

        page.press("slider", "ArrowRight")  # by one stop, a twentieth of a decade
        (doubt,) = assert_as_predicted(page, hostile.predict(largest * 10**0.05))
        assert "1.12 times the largest budget" in doubt
        page.press("slider", "End")
        doubts = assert_as_predicted(page, hostile.predict(1000 * largest))
        assert "1,000 times the largest budget" in doubts[0]

        rng = np.random.default_rng(0)
        for factor in np.exp(rng.uniform(math.log(0.01), math.log(900), 8)):
            page.type("budget", repr(float(factor * largest)))
            assert_as_predicted(page, hostile.predict(float(factor * largest)))
            ratio = float(np.exp(rng.uniform(math.log(3), math.log(900))))
            page.type("ratio", repr(ratio))
            assert_as_predicted(
                page, hostile.predict(float(factor * largest), tokens_per_param=ratio)
            )
            page.type("ratio", "")
            unique = hostile.predict(float(factor * largest)).num_tokens / 10 ** rng.uniform(
                -1, 1.7
            )
            page.type("unique", repr(float(unique)))
            expected = hostile.predict(float(factor * largest), unique_tokens=float(unique))
            doubts = assert_as_predicted(page, expected, UNDER_A_CAP)
            codes = {check.code for check in expected.checks}
            assert any("Muennighoff" in d for d in doubts) == ("repetition-assumed" in codes)
            assert any("hardly lowers" in d for d in doubts) == ("data-worn-out" in codes)
            page.type("unique", "")

        page.type("budget", repr(largest))
        for shortage, worn_out in ((20, False), (90, True)):
            unique = float(hostile.predict(largest).num_tokens / shortage)
            page.type("unique", repr(unique))
            expected = hostile.predict(largest, unique_tokens=unique)
            doubts = assert_as_predicted(page, expected, UNDER_A_CAP)
            assert any("hardly lowers" in d for d in doubts) == worn_out
            assert ("data-worn-out" in {check.code for check in expected.checks}) == worn_out

        page.type("ratio", "20")
        page.type("unique", "1e9")
        assert shown(page)[:2] == ({}, {})
        assert "not both" in shown(page)[2][0]
        page.type("unique", "")
        for nothing in ("", "abc", "-1", repr(2000 * largest)):
            page.type("budget", nothing)
            assert shown(page)[:2] == ({}, {})

        page.open(path, width=390, state=f"#C={largest!r}&ratio=20")
        assert_as_predicted(page, hostile.predict(largest, tokens_per_param=20.0))
        assert page.run("document.documentElement.scrollWidth") <= 390
        page.run("document.getElementById('copy').click()")
        page.wait("document.getElementById('copied').textContent !== ''")

        path.write_text(without_a_loss())
        page.open(path)
        assert page.run("document.getElementById('loss').textContent") == "–"
        assert "fewer than three budgets" in shown(page)[2][0]

        assert page.errors == []
        assert {address.partition(":")[0] for address in page.asked_for} <= {
            "file",
            "data",
            "about",
        }


@pytest.fixture(scope="module")
def piloted():
    meta = {"tokens_per_example": "16", "schedule": HOSTILE, "warmup": HOSTILE}
    return fit(with_pilot(), name="piloted", meta=meta, num_draws=100)


@pytest.fixture(scope="module")
def page_of_piloted(piloted):
    return html_page.page(piloted.findings, NONE)


def test_the_page_says_what_to_train_with(piloted, page_of_piloted, text):
    assert HOSTILE not in page_of_piloted
    section = page_of_piloted.split("Train this</h2>")[1].split("</section>")[0]
    prediction = piloted.predict(1e14)
    for shown in (f"{prediction.learning_rate:.3g} (", f"{prediction.batch_size} (", "steps"):
        assert f"<td>{shown}" in section or f">{shown}</th>" in section
    assert "None: all 35 runs take part" in page_of_piloted
    # A page without a recipe.
    assert "Train this" not in text
    assert 'id="rate"' not in text


@pytest.mark.browser
@pytest.mark.skipif(installed() is None, reason="no Chromium is installed")
def test_the_slider_shows_the_recipe(piloted, page_of_piloted, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page_of_piloted)
    with browser(tmp_path / "profile") as page:
        for factor in (1.0, 10.0):
            prediction = piloted.predict(factor * piloted.largest_budget)
            page.open(path, state=f"#C={prediction.compute_budget!r}")
            ids = "['rate', 'rate-between', 'batch']"
            text = page.run(f"{ids}.map(id => document.getElementById(id).textContent)")
            low, high = prediction.learning_rate_interval
            assert text == [
                f"{prediction.learning_rate:.3g}",
                f"({low:.3g} to {high:.3g})",
                str(prediction.batch_size),
            ]
            assert "known within" not in page.run("document.getElementById('doubts').textContent")


@pytest.mark.browser
@pytest.mark.skipif(installed() is None, reason="no Chromium is installed")
def test_the_slider_doubts_a_recipe_as_the_prediction_does(piloted, tmp_path):
    recipe = piloted.recipe_law
    wide = np.array(recipe.covariance) + np.diag([1.0, *[0] * 7])
    found = replace(
        piloted.findings, recipe_law=replace(recipe, covariance=tuple(map(tuple, wide)))
    )
    path = tmp_path / "report.html"
    path.write_text(html_page.page(found, NONE))
    with browser(tmp_path / "profile") as page:
        page.open(path)
        doubts = page.run("document.getElementById('doubts').textContent")
    assert doubts.startswith("learning rate is known within")
    (check,) = Result(found).predict(found.largest_budget).checks
    assert check.code == "recipe-uncertain"
