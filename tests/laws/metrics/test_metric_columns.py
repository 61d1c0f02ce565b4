import pytest

from flops_fit.errors import ArgumentError
from flops_fit.laws.metrics.columns import read_metrics


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (None, {}),
        ("accuracy", {"accuracy": None}),
        (["a", "b"], {"a": None, "b": None}),
        ({"a": (0.25, 1), "b": (None, 9)}, {"a": (0.25, 1), "b": (None, 9)}),
        ({"c": None}, {"c": None}),
    ],
)  # fmt: skip
def test_metrics_are_names_or_bounds(given, found):
    assert read_metrics(given, ("loss",)) == found


def test_all_faults_are_told_at_once():
    with pytest.raises(ArgumentError) as told:
        read_metrics({"loss": None, 3: None, "a": (1, 0), "b": "0 to 1"}, ("loss",))
    for part in ("'loss' is a column", "got 3", "of 'a', None for none, got (1, 0)", "of 'b'"):
        assert part in str(told.value)
