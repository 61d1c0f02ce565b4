import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flops_fit.errors import ArgumentError
from flops_fit.sweep.task.model_cost import ModelCost
from flops_fit.sweep.task.size_finder import SizeFinder


def finder(count, runs=lambda size: True, given=None):
    """A finder over a rule in place of a model."""

    def checked(size):
        found = count(size)
        if found is None:
            raise ValueError(f"{size} is refused")
        return found

    def measure(size):
        if not runs(size):
            raise RuntimeError(f"{size} does not run\nat all")
        return ModelCost(size, count(size), 6.0 * count(size), "", "measured")

    return SizeFinder(checked, measure, given)


def test_nearest_by_ratio():
    squares = finder(lambda size: size**2)
    assert squares.nearest(10_000) == 100
    assert squares.nearest(0.1) == 1
    assert (squares.nearest(2.05), squares.nearest(1.95)) == (2, 1)  # either side of sqrt(1 x 4)


@settings(max_examples=60, deadline=None)
@given(
    first=st.integers(1, 60),
    power=st.sampled_from([1.0, 1.5, 2.0, 3.0]),
    wanted=st.floats(1, 1e9),
)
def test_no_other_size_is_nearer(first, power, wanted):
    def count(size):
        return None if size < first else 7 + int(size**power)

    found = finder(count).nearest(wanted)

    def off(size):
        n = count(size)
        return max(n, wanted) / min(n, wanted)

    assert off(found) <= min(off(s) for s in (found - 1, found, found + 1) if s >= first)


@settings(max_examples=40, deadline=None)
@given(multiple=st.sampled_from([2, 8, 12, 64, 96]), wanted=st.floats(1e3, 1e9))
def test_only_multiples_are_accepted(multiple, wanted):
    widths = finder(lambda size: 12 * size**2 if size % multiple == 0 else None)
    found = widths.nearest(wanted)
    assert found % multiple == 0
    exact = (wanted / 12) ** 0.5
    assert found == multiple or abs(found - exact) <= multiple


def test_refused_sizes_keep_their_reason():
    widths = finder(lambda size: size**2 if size % 8 == 0 else None)
    assert widths.num_params(9) is None
    assert widths.smallest() == 8
    assert widths.refused[9] == "ValueError: 9 is refused"
    assert set(widths.refused) == {1, 2, 3, 4, 5, 6, 7, 9}


def test_sizes_that_build_but_do_not_run_are_passed_over():
    widths = finder(lambda size: size**2, runs=lambda size: size % 3 == 0)
    cost = widths.nearest_cost(100.0)
    assert cost.size == 9
    assert widths.refused[10] == "RuntimeError: 10 does not run"
    assert widths.cost(10) is None
    assert widths.nearest(100.0) == 9


def test_each_size_is_counted_and_measured_once():
    asked = []

    def count(size):
        asked.append(size)
        return size**2

    def measure(size):
        asked.append(-size)
        return ModelCost(size, size**2, 1.0, "", "measured")

    sizes = SizeFinder(count, measure)
    for wanted in (1e4, 2e4, 1e4):
        sizes.nearest_cost(wanted)
    assert len(asked) == len(set(asked))


def test_width_rounded_up_to_a_multiple_stays_level_for_a_while():
    rounded = finder(lambda size: (-(-size // 64) * 64) ** 2)
    rounded.check_growth()
    assert rounded.num_params(rounded.nearest(128**2)) == 128**2
    assert rounded.num_params(rounded.nearest(640**2 * 1.01)) == 640**2


@pytest.mark.parametrize("count", [lambda s: 100, lambda s: 1000 - s, lambda s: 1000 // s + 1])
def test_counts_that_do_not_grow_are_an_error(count):
    with pytest.raises(ArgumentError, match=r"num_params\(\) does not grow with the size param"):
        finder(count).check_growth()
    with pytest.raises(ArgumentError, match="does not grow"):
        finder(count, given=[2, 4, 8]).check_growth()


def test_no_size_at_all():
    with pytest.raises(ArgumentError, match=r"no size from 1 to 512 builds .* 512 is refused"):
        finder(lambda size: None).smallest()
    with pytest.raises(ArgumentError, match=r"it raised at all of the sizes .'s': .*s is refused"):
        finder(lambda size: None, given=["s"]).check_growth()


def test_depth_and_the_largest_size_there_is():
    layers = finder(lambda size: 1000 + 500 * size if size <= 24 else None)
    assert layers.nearest(1000 + 500 * 7.2) == 7
    assert layers.nearest(1e12) == 24


def test_given_sizes_of_any_kind():
    counts = {"small": 10, "large": 1000, "base": 100}
    words = finder(counts.get, given=list(counts))
    words.check_growth()
    assert words.ascending() == ["small", "base", "large"]
    assert words.smallest() == "small"
    fractions = finder(lambda size: int(100 * size), given=[0.5, 2, 1.25])
    fractions.check_growth()
    assert fractions.ascending() == [0.5, 1.25, 2]


def test_a_fault_of_the_model_is_no_refusal():
    def count(size):
        raise ArgumentError("model_cls: no num_params()")

    with pytest.raises(ArgumentError, match="no num_params"):
        SizeFinder(count, lambda size: None).num_params(4)
