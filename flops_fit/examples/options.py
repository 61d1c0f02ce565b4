"""The command-line options that the example scripts share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any


def sweep_options(
    description: str, budgets: Sequence[float], eval_examples: int
) -> argparse.ArgumentParser:
    """A parser with `--budgets`, `--sizes`, `--workers`, `--lr`, `--batch`, `--eval-examples`.

    Args:
        description: What the script does.
        budgets: Default budgets in FLOPs.
        eval_examples: Default number of held-out examples.
    """
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    many: Any = {"nargs": "+", "action": _Listed}
    add("--budgets", type=_listed(float), **many, default=list(budgets), metavar="C", help="FLOPs")
    add("--sizes", type=_listed(int), **many, metavar="SIZE", help="default: planned")
    default = "default: %(default)s"  # filled in by argparse; a script may change it
    workers = f'"auto" means one per GPU, or per CPU core; {default}'
    add("--workers", type=_count, default="auto", metavar="COUNT", help=workers)
    found = f'"auto" finds it by experiment, or the name of a rule as "deepseek"; {default}'
    add("--lr", type=_rate, default="auto", metavar="RATE", help=f"peak learning rate; {found}")
    batch = f'examples per step, "auto" finds them by experiment, or a rule; {default}'
    add("--batch", type=_batch, default="auto", metavar="COUNT", help=batch)
    held_out = f"held-out examples; {default}"
    add("--eval-examples", type=int, default=eval_examples, metavar="COUNT", help=held_out)
    return parser


class _Listed(argparse.Action):
    """Numbers separated by spaces or commas; an empty text means "not given"."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        """Store them as one list."""
        numbers = [number for part in values for number in part]
        setattr(namespace, self.dest, numbers or self.default)


def _listed(number: Callable[[str], float]) -> Callable[[str], list[float]]:
    def numbers(text: str) -> list[float]:
        return [number(part) for part in text.split(",")] if text else []

    return numbers


def _count(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a whole number or 'auto', got {text!r}"
        ) from None


def _batch(text: str) -> int | str:
    """A whole number, or a name that `Recipe` checks."""
    return int(text) if text.isdigit() else text


def _rate(text: str) -> float | str:
    """A number, or a name that `Recipe` checks."""
    try:
        return float(text)
    except ValueError:
        return text
