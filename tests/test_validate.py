import math

import numpy as np
import pytest

from flops_fit import validate
from flops_fit.errors import ArgumentError

VALUES = [
    -1, 0, 0.5, 1, 2.0, math.inf, math.nan, True, "1", "auto", None, [1],
    np.int64(3), np.float32(0.5), np.array([1, 2]),
]  # fmt: skip
ACCEPTED = {
    "is_number": [-1, 0, 0.5, 1, 2.0, math.inf, math.nan, np.int64(3), np.float32(0.5)],
    "is_whole_number": [-1, 0, 1, np.int64(3)],
    "is_positive": [0.5, 1, 2.0, np.int64(3), np.float32(0.5)],
    "is_non_negative": [0, 0.5, 1, 2.0, np.int64(3), np.float32(0.5)],
    "is_fraction": [0, 0.5, np.float32(0.5)],
    "is_count": [1, np.int64(3)],
    "is_count_or_auto": [1, "auto", np.int64(3)],
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_each_check_accepts_its_values_and_no_others(name):
    accepted = [value for value in VALUES if getattr(validate, name)(value)]
    assert list(map(repr, accepted)) == list(map(repr, ACCEPTED[name]))


def test_all_problems_are_raised_in_one_error():
    validate.raise_problems([])
    with pytest.raises(ArgumentError, match="cannot start:\n  - a\n  - b") as caught:
        validate.raise_problems(["a", "b"], "cannot start:")
    assert caught.value.problems == ["a", "b"]
