import math

import pytest

from flops_fit.display import number_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "0.0123"), (1, "1"), (1.234, "1.23"), (13.0, "13"), (12.34, "12"),
        (999.6, "1.00k"), (31234, "31.2k"),
        (999_499, "999k"), (1.24e9, "1.24B"), (123.4e12, "123T"), (3.14e16, "3.14e+16"),
        (math.nan, "?"), (math.inf, "?"), (0.0, "0"),
    ],
)  # fmt: skip
def test_count(value, text):
    assert number_text.count(value) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.80812, 0.0301, "1.808 ± 0.030"),
        (512.4, 140, "510 ± 140"),
        (15_812.3, 15_097, "16,000 ± 15,000"),
        (2e7, 150.0, "2e+07 ± 1.5e+02"),
        (1.0, 0.0, "1"),
        (1.0, math.nan, "1"),
        (3412.0, 9.9, "3412.0 ± 9.9"),
    ],
)
def test_plus_minus(value, error, text):
    assert number_text.plus_minus(value, error) == text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.00123, "0.12 %"), (0.0999, "10 %"), (-0.5, "-50 %"), (0.999, "100 %"), (1.234, "123 %")],
)
def test_percent(fraction, text):
    assert number_text.percent(fraction) == text


def test_an_interval_and_its_absence():
    assert number_text.between(1e3, 2e3, number_text.count) == "1.00k to 2.00k"
    assert number_text.between(math.nan, math.nan, number_text.count) == ""
    assert number_text.between(1.0, math.inf, number_text.loss) == "1.000 to ?"


@pytest.mark.parametrize(
    ("factor", "text"),
    [(0.1, "0.1"), (1, "1"), (4.2, "4.2"), (99.7, "100"), (1000, "1,000"), (3.2e9, "3.2e+09")],
)
def test_times(factor, text):
    assert number_text.times(factor) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.1234, "0.12 s"), (42.4, "42 s"), (59.7, "60 s"), (60, "1 min"), (200, "3 min 20 s"),
        (3599.9, "60 min"), (18600, "5 h 10 min"), (273600, "3 d 4 h"), (math.nan, "?"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    assert number_text.duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(12, "12 B"), (3200, "3.2 kB"), (41.04e9, "41 GB"), (999.9e6, "1 GB"), (math.nan, "?")],
)
def test_memory(num_bytes, text):
    assert number_text.memory(num_bytes) == text


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (number_text.ratio, 0.0123456, "0.0123"),
        (number_text.ratio, 999.4, "999"),
        (number_text.ratio, 1254.0, "1,254"),
        (number_text.ratio, 2.5e6, "2.5e+06"),
        (number_text.whole, 12.54, "12.5"),
        (number_text.whole, 32, "32"),
        (number_text.whole, 1024.4, "1,024"),
        (number_text.coefficient, 107265.3, "1.073e+05"),
        (number_text.coefficient, 0.34, "0.34"),
    ],
)
def test_ratios_whole_numbers_and_coefficients(form, value, text):
    assert form(value) == text
