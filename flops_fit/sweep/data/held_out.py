"""The twentieth of a dataset that is set aside for the held-out loss, where none is passed.

Of a map-style dataset, contiguous blocks spread over its length are held out. An example drawn at
random has neighbours on both sides in the training data: of a time series, or of windows that
overlap, these give it away. Blocks have neighbours at their ends only. Sweeps that were begun when
the share was drawn at random go on with that one, so that their losses compare.

Of a stream, every twentieth example is held out, since its length may be unknown or infinite.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch.utils.data import IterableDataset

EVERY = 20  # one example in twenty is set aside
LONGEST_BLOCK = 64  # examples
FEWEST_BLOCKS = 10
# How a map-style dataset is split. The names are a stored format.
Rule = Literal["blocks", "random"]
BLOCKS: Rule = "blocks"
RANDOM: Rule = "random"
# What else `Source.held_out_by` may be.
STRIDED = "every 20th"
OWN_DATA = "eval_dataset"


def share(count: int) -> int:
    """Number of examples set aside of `count`."""
    return -(-count // EVERY)


def split_indices(count: int, rule: Rule) -> tuple[list[int], list[int]]:
    """The indices of `count` examples to train on, and those held out; both ascending."""
    # The split does not depend on the seed of the sweep.
    if rule == BLOCKS:
        held_out = [index for block in blocks_of(count) for index in block]
    else:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
        held_out = sorted(order[: share(count)])
    of_held_out = set(held_out)
    return [index for index in range(count) if index not in of_held_out], held_out


def blocks_of(count: int) -> list[range]:
    """The blocks held out of `count` examples, ascending.

    There are ten, or one for each 64 examples held out where that is more: as long as they can be,
    and still many enough that data sorted by class, author or date are all in them.
    """
    total = share(count)
    number = max(min(total, FEWEST_BLOCKS), total // LONGEST_BLOCK)
    blocks = []
    for i in range(number):
        size = total * (i + 1) // number - total * i // number
        start = (count * (2 * i + 1) - size * number) // (2 * number)  # in the middle of its part
        blocks.append(range(start, start + size))
    return blocks


def in_words(held_out_by: str, count: int | None) -> str:
    """What is held out, as a line for the user; "" if the user passed it.

    Args:
        held_out_by: As `Source.held_out_by`.
        count: Examples in the dataset; None if unknown.
    """
    if held_out_by == STRIDED:
        return (
            f"held out: every {EVERY}th example of the stream; if its neighbours overlap or belong "
            "together, pass eval_dataset"
        )
    if held_out_by == RANDOM:
        return (
            "held out: a twentieth of the dataset drawn at random, as when this sweep began; under "
            "another name= contiguous blocks are held out"
        )
    if held_out_by != BLOCKS or count is None:
        return ""
    blocks = blocks_of(count)
    longest = max(map(len, blocks))
    each = "1 example" if longest == 1 else f"up to {longest} examples"
    return (
        f"held out: {share(count):,} of {count:,} examples, in {len(blocks):,} blocks of {each} "
        "spread over the dataset; if examples belong to groups (windows of one document, say), "
        "pass eval_dataset with groups of its own"
    )


class Strided(IterableDataset[Any]):
    """Every `EVERY`-th example of a stream, or all others."""

    def __init__(self, dataset: Iterable[Any], *, held_out: bool) -> None:
        self.dataset = dataset
        self.held_out = held_out

    def __iter__(self) -> Iterator[Any]:
        for index, example in enumerate(self.dataset):
            if (index % EVERY == 0) == self.held_out:
                yield example
