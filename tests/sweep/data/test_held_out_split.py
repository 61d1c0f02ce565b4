"""Which examples are held out, where the user passes no held-out data."""

import itertools

import pytest

from flops_fit.sweep.data import held_out
from flops_fit.sweep.data.held_out import BLOCKS, RANDOM, blocks_of, share, split_indices


@pytest.mark.parametrize("count", [2, 3, 20, 21, 40, 399, 400, 1707, 12_801, 100_003])
@pytest.mark.parametrize("rule", [BLOCKS, RANDOM])
def test_every_example_is_in_one_part_and_a_twentieth_is_held_out(count, rule):
    train, kept = split_indices(count, rule)
    assert sorted(train + kept) == list(range(count))
    assert len(kept) == share(count)
    assert train == sorted(train)
    assert kept == sorted(kept)


@pytest.mark.parametrize(
    ("count", "number", "longest"), [(2, 1, 1), (100, 5, 1), (400, 10, 2), (1707, 10, 9),
    (12_800, 10, 64), (128_000, 100, 64), (1_300_000, 1015, 65)],
)  # fmt: skip
def test_blocks_are_contiguous_and_spread_evenly(count, number, longest):
    blocks = blocks_of(count)
    assert (len(blocks), max(map(len, blocks))) == (number, longest)
    part = count / number
    for i, block in enumerate(blocks):
        assert i * part <= block.start <= block.stop <= (i + 1) * part  # one in each part ...
        assert abs((block.start + block.stop) / 2 - (i + 0.5) * part) <= 1  # ... in its middle


def neighbours(count, rule):
    """The share of held-out examples whose neighbours on either side are trained on."""
    train, kept = (set(part) for part in split_indices(count, rule))
    return sum({i - 1, i + 1} <= train for i in kept) / len(kept)


def test_windows_that_overlap_their_neighbours_leak_at_the_ends_of_blocks_alone():
    """Of windows that overlap the next, a random split gives away nine in ten."""
    assert neighbours(12_800, RANDOM) > 0.85
    assert neighbours(12_800, BLOCKS) == 0
    train, kept = (set(part) for part in split_indices(12_800, BLOCKS))
    at_an_end = [i for i in kept if {i - 1, i + 1} & train]
    assert len(at_an_end) / len(kept) == pytest.approx(2 / 64)


def test_data_sorted_by_class_are_held_out_of_every_class():
    classes = [index // 100 for index in range(1000)]
    assert {classes[index] for index in split_indices(1000, BLOCKS)[1]} == set(range(10))


@pytest.mark.parametrize(
    ("held_out_by", "count", "says"),
    [
        ("blocks", 400, "20 of 400 examples, in 10 blocks of up to 2 examples spread over"),
        ("blocks", 30, "2 of 30 examples, in 2 blocks of 1 example spread over"),
        ("random", 400, "drawn at random, as when this sweep began; under another name="),
        ("every 20th", None, "every 20th example of the stream; if its neighbours overlap"),
    ],
)
def test_what_is_held_out_is_said(held_out_by, count, says):
    assert says in held_out.in_words(held_out_by, count)
    assert held_out.in_words("eval_dataset", count) == ""


def test_every_twentieth_example_of_a_stream_without_end_is_held_out():
    kept = iter(held_out.Strided(itertools.count(), held_out=True))
    train = iter(held_out.Strided(itertools.count(), held_out=False))
    assert list(itertools.islice(kept, 3)) == [0, 20, 40]
    assert list(itertools.islice(train, 20)) == [*range(1, 20), 21]
