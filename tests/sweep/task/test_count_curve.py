import pytest

from flops_fit.sweep.task import count_curve
from flops_fit.sweep.task.count_curve import CountCurve


class Model:
    """FLOPs of a family of models, and the sizes at which they were counted."""

    def __init__(self, flops):
        self.flops = flops
        self.counted = []

    def at(self, size):
        def count():
            self.counted.append(size)
            return (float(self.flops(size)),)

        return count


def counts(flops, sizes, patience_s=0.0):
    model, curve = Model(flops), CountCurve(patience_s)
    found = [curve.counts_at(size, model.at(size)) for size in sizes]
    assert found == [(flops(size),) for size in sizes]
    return model.counted


SIZES = [1, 64, 16, 32, 48, 8, 24, 40, 56]


@pytest.mark.parametrize(
    ("flops", "needed"),
    [
        (lambda layers: 10 + 7 * layers, 4),
        (lambda width: 5 + 3 * width + 660 * width**2, 5),
        (lambda size: size**3 + 2 * size, 6),
        (lambda size: size * (size + 1) // 2, 5),
    ],
)
def test_sizes_between_those_counted_follow_from_a_polynomial(flops, needed):
    assert counts(flops, SIZES) == SIZES[:needed]


@pytest.mark.parametrize(
    "flops",
    [
        lambda width: 12 * width**2 * max(1, width // 24),  # depth goes with width
        lambda width: 2 * (-(-width // 10) * 10) ** 2,  # rounded to a multiple
        lambda size: 2**size,
    ],
)
def test_a_family_that_is_no_polynomial_is_counted_at_every_size(flops):
    assert counts(flops, SIZES) == SIZES


def test_sizes_beyond_those_counted_are_counted():
    assert counts(lambda size: 3 * size, [1, 2, 3, 4, 9, 5]) == [1, 2, 3, 4, 9]


def test_fast_counts_are_all_made():
    assert counts(lambda size: 3 * size, SIZES, patience_s=1e9) == SIZES


def test_sizes_that_are_no_whole_numbers_are_counted():
    sizes = ["small", 1.5, "large"]
    flops = {"small": 3, 1.5: 4, "large": 5}
    assert counts(flops.__getitem__, sizes) == sizes


def test_batches_of_several_lengths_have_a_polynomial_each():
    short, long = Model(lambda width: 3 * width), Model(lambda width: 7 * width + width**2)
    curve = CountCurve(patience_s=0.0)
    found = [
        curve.counts_at(size, lambda size=size: short.at(size)() + long.at(size)())
        for size in SIZES
    ]
    assert found == [(3 * size, 7 * size + size**2) for size in SIZES]
    assert long.counted == short.counted == SIZES[:5]


class Ticking:
    """A clock that moves by what a count takes."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(count_curve, "monotonic", lambda: self.now)

    def counter(self, counted, size, takes_s, flops):
        def count():
            self.now += takes_s
            counted.append(size)
            return flops(size)

        return count


def by_both_ways(monkeypatch, slow_s, quick_s, quick_flops=lambda size: (2.0**size,)):
    """The sizes that each way has counted, of models that are no polynomial."""
    clock, curve, slow, quick = Ticking(monkeypatch), CountCurve(), [], []
    for size in (1, 2, 3):
        found = curve.counts_at(
            size,
            clock.counter(slow, size, slow_s, lambda size: (2.0**size,)),
            clock.counter(quick, size, quick_s, quick_flops),
        )
        assert found == (2.0**size,)
    return slow, quick


def test_a_slow_count_is_made_the_quicker_way_once_it_gave_the_same(monkeypatch):
    assert by_both_ways(monkeypatch, 2.0, 0.1) == ([1], [1, 2, 3])


def test_a_fast_count_looks_for_no_other_way(monkeypatch):
    assert by_both_ways(monkeypatch, 0.1, 0.01) == ([1, 2, 3], [])


def fails(size):
    raise RuntimeError("no such kernel")


@pytest.mark.parametrize(
    ("quick_s", "flops"),
    [(0.1, lambda size: (2.0**size + 1,)), (0.1, fails), (1.5, lambda size: (2.0**size,))],
    ids=["another count", "an error", "no faster"],
)
def test_another_way_that_differs_fails_or_is_slow_is_not_taken(monkeypatch, quick_s, flops):
    assert by_both_ways(monkeypatch, 2.0, quick_s, flops) == ([1, 2, 3], [1])


def test_where_the_quicker_way_fails_later_the_first_counts(monkeypatch):
    def flops(size):
        return (2.0**size,) if size < 2 else fails(size)

    assert by_both_ways(monkeypatch, 2.0, 0.1, flops) == ([1, 2, 3], [1, 2, 3])
