import warnings
from types import SimpleNamespace

import click
import pandas as pd
import pytest
from click.testing import CliRunner

from flops_fit.cli.outcome import Group
from flops_fit.cli.results import exit_code
from flops_fit.errors import ArgumentError, FlopsFitWarning, SweepError


def raising(error: BaseException) -> Group:
    @click.group(cls=Group)
    def main():
        pass

    @main.command()
    @click.option("--number", type=int)
    @click.option("--model-cls", "--model", "model_cls")
    def go(number, model_cls):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SweepError("no store"), 1, "Error: no store\n"),
        (ArgumentError("model_cls: wrong"), 2, "Error: --model-cls: wrong\n"),
        (ArgumentError("other: wrong"), 2, "Error: other: wrong\n"),
        (ArgumentError(["model_cls: a", "b"]), 2, "Error: 2 problems:\n  - --model-cls: a\n  - b"),
        (RuntimeError("odd\nmore"), 1, "Error: RuntimeError: odd (add --traceback to see where)"),
        (KeyboardInterrupt("3 of 4 kept"), 130, "3 of 4 kept"),
        (KeyboardInterrupt(), 130, "Stopped"),
        (click.Abort(), 130, "Stopped"),
        (SystemExit(143), 143, ""),
    ],
)
def test_what_is_raised_becomes_a_message_and_an_exit_code(error, code, message):
    done = CliRunner().invoke(raising(error), ["go"])
    assert done.exit_code == code
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_traceback_is_shown_where_asked():
    done = CliRunner().invoke(raising(SweepError("why")), ["go", "--traceback"])
    assert done.exit_code == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith("Error: why\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["og"], "No such command 'og'"),
        (["go", "--numbr", "1"], "No such option '--numbr'"),
        (["go", "--number", "x"], "Invalid value for '--number'"),
    ],
)
def test_wrong_words_take_one_line(words, message):
    done = CliRunner().invoke(raising(SweepError("")), words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "--help" in done.stderr
    assert done.stderr.count("\n") == 1


def test_warnings_are_short_lines():
    @click.group(cls=Group)
    def main():
        pass

    @main.command()
    def go():
        warnings.warn("another name keeps them", FlopsFitWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = CliRunner().invoke(main, ["go"])
    assert done.exit_code == 0
    assert done.stderr == "warning: another name keeps them\n"


@pytest.mark.parametrize(
    ("law", "refusals", "states", "code"),
    [
        ("a law", [], ["complete", "complete"], 0),
        (None, [], ["complete", "complete"], 1),
        ("a law", ["of what lies beyond"], ["complete", "complete"], 1),
        ("a law", [], ["complete", "failed"], 1),
        ("a law", [], ["failed", "complete"], 0),  # of a budget that is not asked for now
    ],
)
def test_a_sweep_without_a_law_ends_in_1(law, refusals, states, code):
    runs = pd.DataFrame({"state": states, "compute_budget": [1e9, 2e9]})
    findings = SimpleNamespace(not_beyond=refusals)
    assert exit_code(SimpleNamespace(law=law, runs=runs, findings=findings), [2e9]) == code
