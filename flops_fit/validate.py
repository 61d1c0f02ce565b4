"""Argument checks: what counts as a number, and one error for all problems found.

NumPy's scalars count as numbers; `True` and `False` do not. Each function accepts any value and
never raises, so that a caller can report every bad argument in one `ArgumentError`.
"""

from __future__ import annotations

import math
import sys
from numbers import Integral, Real
from typing import Any

from flops_fit.errors import ArgumentError


def raise_problems(problems: list[str], heading: str = "") -> None:
    """Raise one `ArgumentError` that lists all problems; do nothing if there are none.

    Args:
        problems: One message per bad argument.
        heading: First line of the error; by default the number of problems.

    Raises:
        ArgumentError: `problems` is not empty.
    """
    if problems:
        raise ArgumentError(problems, heading)


def is_number(value: Any) -> bool:
    """Whether `value` is a real number; infinity and NaN are."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole_number(value: Any) -> bool:
    """Whether `value` is of an integer type; 2.0 is not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_positive(value: Any) -> bool:
    """Whether `value` is a number, positive and finite; as a float too, unlike 10**400."""
    if is_whole_number(value) and int(value) > sys.float_info.max:
        return False
    return is_number(value) and 0 < value < math.inf


def is_non_negative(value: Any) -> bool:
    """Whether `value` is a number, 0 or positive, and finite."""
    return is_number(value) and 0 <= value < math.inf


def is_fraction(value: Any) -> bool:
    """Whether `value` is a number in [0, 1)."""
    return is_number(value) and 0 <= value < 1


def is_count(value: Any) -> bool:
    """Whether `value` is a positive whole number."""
    return is_whole_number(value) and value > 0


def is_count_or_auto(value: Any) -> bool:
    """Whether `value` is a positive whole number or the string "auto"."""
    return is_count(value) or (isinstance(value, str) and value == "auto")
