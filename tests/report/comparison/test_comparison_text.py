from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from flops_fit.laws.comparison.contrast import Crossing
from flops_fit.report.comparison import text


class Told:
    """A comparison whose table and crossing are given."""

    def __init__(self, rows, crossing=None, times=3.0, pairs=None, meta=None, reach=1e17):
        self.rows, self.found, self.times, self.pairs = rows, crossing, times, pairs
        self.common, self.reach = (1e12, 1e14), reach
        runs = pd.DataFrame({"flops": [1e14, 1e14]})
        self.first = SimpleNamespace(fitted_runs=runs, meta={"name": "gpt"})
        self.second = SimpleNamespace(fitted_runs=runs, meta=meta or {})

    def at(self, C):
        return pd.DataFrame(self.rows).assign(compute_budget=C, extrapolation=C / 1e14)

    def crossing(self):
        return self.found

    def factor_to_tell(self, C):
        return self.times


def row(multiplier, ends, difference, low, high, probability=0.99):
    return {
        "multiplier": multiplier,
        "multiplier_low": ends[0],
        "multiplier_high": ends[1],
        "loss_difference": difference,
        "loss_difference_low": low,
        "loss_difference_high": high,
        "probability_better": probability,
    }


BETTER = row(1.5, (1.4, 1.6), -0.05, -0.06, -0.04)
WORSE = row(0.5, (0.4, 0.6), 0.05, 0.04, 0.06, 0.01)
EQUAL = row(1.1, (0.9, 1.3), -0.01, -0.03, 0.01, 0.8)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([BETTER, BETTER], "rope is better: it reaches the loss of gpt with 1.5 times less"),
        (
            [WORSE, WORSE],
            "gpt is better: rope needs 2 times as much compute for the same loss (95 % 1.67",
        ),
        ([EQUAL, EQUAL], "cannot be told which is better: rope needs between 0.769 and 1.11"),
        ([EQUAL, EQUAL], "about 8e+14 FLOPs more (each run 3.0 times) would tell"),
        ([BETTER, EQUAL], "10 times the largest budget, it cannot be told"),
    ],
)
def test_the_verdict_says_which_is_better(rows, said):
    assert said in text.verdict(("gpt", "rope"), Told(rows))


def test_repetition_that_would_not_tell_is_not_advised():
    said = text.verdict(("gpt", "rope"), Told([EQUAL, EQUAL], times=np.inf))
    assert "Repeating these runs would not tell" in said


def test_a_crossing_is_told():
    said = text.verdict(("gpt", "rope"), Told([WORSE, BETTER], Crossing(2e13, 1e13, 3e13, True)))
    assert "equal at 2e+13 FLOPs (95 % 1e+13 to 3e+13); rope is better beyond" in said


def test_a_loss_that_is_never_reached_is_told():
    never = row(0.0, (0.0, 0.0), 0.5, 0.4, 0.6, 0.0)
    said = text.verdict(("gpt", "rope"), Told([never, never]))
    assert "rope does not reach the same loss with any compute that is looked at" in said


def test_pairs_that_share_nothing_are_told_and_not_advised():
    told = Told([EQUAL, EQUAL], times=np.inf, meta={"paired_with": "gpt"})
    said = text.verdict(("gpt", "rope"), told)
    assert "larger budgets might." in said
    assert "nothing cancels" in said


def test_the_end_of_the_reach_is_told():
    said = text.verdict(("gpt", "rope"), Told([BETTER], reach=1.1e14))
    assert "Beyond 1.1e+14 FLOPs one of the sweeps predicts nothing" in said


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((1.2, 1.6), "1.2 to 1.6"),
        ((0.0, 1.6), "at most 1.6"),
        ((1.2, np.inf), "at least 1.2"),
        ((0.0, np.inf), "not known"),
    ],
)
def test_the_cells_of_a_multiplier(ends, said):
    table = pd.DataFrame([{**row(1.5, ends, -1, -2, 0), "compute_budget": 1, "extrapolation": 1}])
    assert text.cells(table)["multiplier, 95 %"].tolist() == [said]


@pytest.mark.parametrize(("p", "said"), [(0.9999, "over 99 %"), (1e-4, "under 1 %"), (0.5, "50 %")])
def test_no_probability_is_certain(p, said):
    table = pd.DataFrame([{**BETTER, "probability_better": p, "compute_budget": 1}])
    assert text.cells(table.assign(extrapolation=1))["probability"].tolist() == [said]
