"""Every plot equals its reviewed reference: points, bands, words and their style."""

import json

import pytest
from drawn import KEPT, all_described, flat


@pytest.fixture(scope="module")
def drawn_now():
    return all_described()


@pytest.mark.parametrize("name", json.loads(KEPT.read_text(encoding="utf-8")))
def test_a_plot_is_drawn_as_it_was(drawn_now, name):
    kept = flat(json.loads(KEPT.read_text(encoding="utf-8"))[name])
    now = flat(drawn_now[name])
    assert list(now) == list(kept)
    for place, value in kept.items():
        expected = pytest.approx(value, rel=1e-3) if isinstance(value, float) else value
        assert now[place] == expected, place
