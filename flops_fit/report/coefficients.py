"""The summary of a fit as statsmodels prints one: facts, a table of coefficients, the checks."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flops_fit.display import html
from flops_fit.display.number_text import coefficient, count, percent, span
from flops_fit.laws.check import Checks, counted
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.report.summary import backtest_errors

HEAD = ("", "value", "std err", "95 % low", "95 % high")
WIDTH = 78
_FORMS = {
    "five": "five parameters",
    "tied": "four parameters, alpha = beta",
    "bent": "six parameters, a law that bends",
}
# What the parameters are, where their names do not say it.
_MEANINGS = {"a": "a (N_opt ~ C^a)"}


@dataclass(frozen=True, repr=False)
class Summary:
    """The coefficients of a result, with standard errors, intervals and checks.

    Attributes:
        title: What was fitted.
        facts: Name and text of each fact about the fit.
        coefficients: `Result.intervals`: value, 95 % interval and standard error of each parameter.
        recipe: The same of the recipe law; empty where no recipe was found.
        recipe_law: The recipe law as a formula; empty where there is none.
        checks: Everything that is doubtful.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    coefficients: pd.DataFrame
    recipe: pd.DataFrame
    recipe_law: str
    checks: Checks

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.facts) + 2
        facts = [
            textwrap.fill(f"{name + ':':<{width}}{text}", WIDTH, subsequent_indent=" " * width)
            for name, text in self.facts
        ]
        lines = [self.title.center(WIDTH).rstrip(), "=" * WIDTH, *facts, "=" * WIDTH]
        lines += _table(self.coefficients)
        if not self.recipe.empty:
            formula = textwrap.fill(self.recipe_law, WIDTH)
            lines += ["-" * WIDTH, formula, *_table(self.recipe, head=False)]
        lines.append("=" * WIDTH)
        lines += [
            textwrap.fill(str(check), WIDTH, subsequent_indent="  ")
            for check in self.checks or [repr(self.checks)]
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        tables = [html.facts(self.facts), html.rows(_cells(self.coefficients), HEAD)]
        if not self.recipe.empty:
            tables += [html.block([self.recipe_law]), html.rows(_cells(self.recipe), HEAD)]
        return html.block([self.title], *tables, self.checks._repr_html_())


def summarise(findings: Findings) -> Summary:
    """The summary of a fit."""
    name = findings.meta.get("name")
    recipe = findings.recipe_law
    return Summary(
        title=f"Scaling law of {name!r}" if name else "Scaling law",
        facts=tuple(_facts(findings)),
        coefficients=findings.intervals,
        recipe=pd.DataFrame() if recipe is None else recipe.intervals,
        recipe_law="" if recipe is None else _formula(recipe),
        checks=Checks(findings.checks),
    )


def _formula(recipe: RecipeLaw) -> str:
    """The best learning rate and batch as formulas, as far as they were found."""
    N, D = map(count, recipe.centre)
    laws = {
        "learning_rate": f"best learning rate = k (N / {N})^p (D / {D})^q",
        "batch_size": f"best batch = m (D / {D})^r examples",
    }
    rises = {"learning_rate": "c_r tells", "batch_size": "c_b tells"}
    found = ", ".join(laws[name] for name in recipe.tuned)
    tells = "c_r, c_b and rho tell" if len(recipe.tuned) == 2 else rises[recipe.tuned[0]]
    return f"{found[0].upper()}{found[1:]}; {tells} how ln L rises away from the best"


def _facts(findings: Findings) -> list[tuple[str, str]]:
    """How the law was fitted, to what, and how well it predicts."""
    runs = findings.sweep_runs
    excluded = int((runs["excluded"] != "").sum())
    budgets = findings.optima["compute_budget"]
    facts = [
        ("Runs", f"{len(runs)}, {excluded} excluded"),
        ("Budgets", f"{len(budgets)}, {span(map(float, budgets))} FLOPs"),
        ("D counts", findings.meta.get("data_unit", "tokens")),
    ]
    fit = findings.fits.get("headline")
    if fit is None or findings.law is None:
        return [("Law", "none could be fitted: see the checks"), *facts]
    terms = "A / N^alpha + B / D^beta"
    form = f"L = E + {terms}" if fit.form != "bent" else f"L = E + ({terms})^gamma"
    of = "ln L" if fit.space == "log" else "L"
    how = "least squares" if fit.delta is None else f"Huber loss, threshold {fit.delta:g},"
    law = [("Law", form), ("Form", _FORMS[fit.form]), ("Method", f"{how} of {of}")]
    spread = findings.spreads[0]
    noise = percent(spread.residual_std)
    known = [("Noise", f"{noise} of the loss, {counted(spread.dof, 'degree')} of freedom")]
    errors = backtest_errors(findings)
    return [*law, *facts, *known, *([("Back-test", errors)] if errors else [])]


def _table(coefficients: pd.DataFrame, *, head: bool = True) -> list[str]:
    """The coefficients as lines of text."""
    rows: Sequence[Sequence[str]] = _cells(coefficients)
    lines = [f"{row[0]:<22}" + "".join(f"{cell:>14}" for cell in row[1:]) for row in rows]
    if not head:
        return lines
    heads = f"{HEAD[0]:<22}" + "".join(f"{cell:>14}" for cell in HEAD[1:])
    return [heads, "-" * WIDTH, *lines]


def _cells(coefficients: pd.DataFrame) -> list[tuple[str, ...]]:
    return [
        (
            _MEANINGS.get(str(name), str(name)),
            *(
                "not known" if np.isnan(value) else coefficient(value)
                for value in (row["value"], row["standard_error"], row["low"], row["high"])
            ),
        )
        for name, row in zip(coefficients.index, coefficients.to_dict("records"), strict=True)
    ]
