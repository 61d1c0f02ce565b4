"""Every plot holds what it held when it was last looked at: points, bands, words and their look."""

import json

import pytest
from drawn import KEPT, all_described, flat


@pytest.fixture(scope="module")
def told():
    return all_described()


@pytest.mark.parametrize("name", json.loads(KEPT.read_text(encoding="utf-8")))
def test_a_plot_is_drawn_as_it_was(told, name):
    kept = flat(json.loads(KEPT.read_text(encoding="utf-8"))[name])
    now = flat(told[name])
    assert list(now) == list(kept)
    for place, value in kept.items():
        expected = pytest.approx(value, rel=1e-3) if isinstance(value, float) else value
        assert now[place] == expected, place
