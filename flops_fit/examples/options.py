"""The command-line options that the example scripts share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def sweep_options(
    description: str, budgets: Sequence[float], eval_examples: int
) -> argparse.ArgumentParser:
    """A parser of `--budgets`, `--sizes`, `--workers`, `--batch` and `--eval-examples`.

    Args:
        description: What the script does.
        budgets: Budgets in FLOPs where none are given.
        eval_examples: Held-out examples where no number is given.
    """
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--budgets", type=float, nargs="+", default=list(budgets), metavar="C", help="FLOPs")
    add("--sizes", type=int, nargs="+", metavar="SIZE", help="by default planned")
    add("--workers", type=_number, default="auto", help="by default one per GPU, or per core")
    add("--batch", type=_number, default="auto", help="examples a step, by default by rule")
    add("--eval-examples", type=int, default=eval_examples, help="held-out examples")
    return parser


def _number(text: str) -> int | str:
    return text if text == "auto" else int(text)
