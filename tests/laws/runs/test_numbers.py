import math

import pandas as pd
import pytest

from flops_fit.laws.runs.numbers import scale_of, to_numbers, uses_decimal_comma
from flops_fit.laws.runs.table import read_runs


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("70M", 7e7),
        ("1.4B", 1.4e9),
        ("1.4 bn", 1.4e9),
        ("3.2k", 3200),
        ("350 million", 3.5e8),
        ("20T tokens", 2e13),
        ("1,000,000", 1e6),
        ("1 000 000", 1e6),
        ("1.000.000", 1e6),
        ("1'000'000", 1e6),
        ("1_000_000", 1e6),
        ("1e9", 1e9),
        ("6 × 10^18", 6e18),
        ("6x10²¹", 6e21),
        ("10**18", 1e18),
        ("1.5e18 FLOPs", 1.5e18),
        ("3 EFLOPs", 3e18),
        ("12 PF-days", 12 * 8.64e19),
        ("~70M", 7e7),
        ('=("70000000")', 7e7),  # Excel's guard, as in pandas issue 55105
        ("1e400", math.inf),
        ("5 apples", math.nan),
        ("0x10", math.nan),
        ("1,5", math.nan),
        ("", math.nan),
    ],
)
def test_numbers_as_people_write_them(text, number):
    (found,) = to_numbers(pd.Series([text], dtype=object))
    assert found == pytest.approx(number, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "number"),
    [("3,702", 3.702), ("1.234.567", 1234567), ("1.234,5", 1234.5), ("1,5e18", 1.5e18)],
)
def test_decimal_commas(text, number):
    (found,) = to_numbers(pd.Series([text], dtype=object), decimal_comma=True)
    assert found == pytest.approx(number)


@pytest.mark.parametrize(
    ("cells", "decimal"),
    [
        (["3,70"], True),
        (["1.234,5"], True),
        (["3,702"], False),
        (["1,000,000", "3,70"], False),
        (["1,234.5"], False),
        ([3.7, None], False),
    ],
)
def test_decimal_commas_are_told_where_that_is_unambiguous(cells, decimal):
    assert uses_decimal_comma(cells) is decimal


def test_units_of_column_names():
    names = ("M", "billions", "PF-days", "1e18", "10^18", "EFLOPs", "tokens", "apples")
    assert [scale_of(name) for name in names] == [1e6, 1e9, 8.64e19, 1e18, 1e18, 1e18, 1.0, None]


def test_a_loss_with_a_comma_is_no_loss_of_thousands():
    rows = [
        {"N": "15,008", "D": 1e9, "loss": "3,702"},
        {"N": "26,690", "D": 1e9, "loss": "3,525"},
    ]
    assert read_runs(rows)[0]["loss"].tolist() == [3.702, 3.525]
    rows = [{**row, "N": "1,000,000", "loss": 3.7 + i} for i, row in enumerate(rows)]
    assert read_runs(rows)[0]["num_params"].tolist() == [1e6, 1e6]


def test_numbers_too_large_for_floats_are_faults():
    with pytest.raises(ValueError, match="num_params must be positive and finite: 1000"):
        read_runs([{"N": 10**400, "D": 1e9, "loss": 3.0}])
    with pytest.raises(ValueError, match=r"flops must be .* -5, an integer that overflowed"):
        read_runs([{"N": 1e6, "D": 1e9, "C": -5, "loss": 3.0}])
