import pytest

from flops_fit.sweep.task.count_curve import CountCurve


class Model:
    """FLOPs of a family of models, and the sizes at which they were counted."""

    def __init__(self, flops):
        self.flops = flops
        self.counted = []

    def at(self, size):
        def count():
            self.counted.append(size)
            return float(self.flops(size))

        return count


def counts(flops, sizes, patience_s=0.0):
    model, curve = Model(flops), CountCurve(patience_s)
    found = [curve.counts_at(size, [model.at(size)]) for size in sizes]
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
    found = [curve.counts_at(size, [short.at(size), long.at(size)]) for size in SIZES]
    assert found == [(3 * size, 7 * size + size**2) for size in SIZES]
    assert long.counted == short.counted == SIZES[:5]
