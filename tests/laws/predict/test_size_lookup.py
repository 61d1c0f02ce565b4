import pandas as pd
import pytest

from flops_fit.laws.predict.size_lookup import size_for


def table(sizes, params):
    return pd.DataFrame({"size": pd.Series(sizes, dtype=object), "num_params": params})


def test_whole_sizes_give_a_multiple_of_their_divisor():
    runs = table([8, 16, 32], [8.0**2, 16.0**2, 32.0**2])
    assert size_for(runs, 24.0**2) == 24
    assert isinstance(size_for(runs, 500), int)
    assert size_for(runs, 22.0**2) == 24
    assert size_for(runs, 128.0**2) == 128
    assert size_for(runs, 3.0**2) == 8
    assert size_for(table([3, 4], [3.0**2, 4.0**2]), 17.0**2) == 17


def test_floats_are_interpolated():
    assert size_for(table([0.5, 1.0], [1e4, 4e4]), 2e4) == pytest.approx(2**-0.5)


def test_sizes_that_are_names_give_the_nearest():
    assert size_for(table(["s", "m", "l"], [1e6, 1e7, 1e8]), 2e7) == "m"


def test_without_recorded_sizes_there_is_none():
    assert size_for(table([None, None], [1e6, 1e7]), 2e6) is None
    assert size_for(table([8, 16], [1e6, 1e7]), float("nan")) is None


def test_a_single_size_is_returned():
    assert size_for(table([8, 8], [1e6, 1e6]), 5e6) == 8


@pytest.mark.parametrize("law", [lambda w: 36 * w**2 + 500 * w + 7, lambda d: 3000 * d + 90_000])
def test_beyond_the_recorded_sizes_the_polynomial_is_used(law):
    """ln N against ln width is not straight for small models: end slopes were 33 % wrong."""
    sizes = [8, 12, 16, 24, 32]
    runs = table(sizes, [float(law(size)) for size in sizes])
    for size in (20, 4000, 40_000):
        assert size_for(runs, law(size)) == size


def test_pairs_on_no_polynomial_are_extrapolated_by_their_slope():
    runs = table([8, 16, 32, 64], [8.0**3.5, 16.0**3.5, 32.0**3.5, 64.0**3.5])
    assert size_for(runs, 512.0**3.5) == 512
