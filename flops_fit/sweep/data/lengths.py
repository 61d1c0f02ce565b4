"""Data whose examples hold different numbers of labels: how many count, how many are padding.

A few examples spread over the data show whether they differ. If they do, up to a thousand are
read, and batches of them are drawn and collated as training does: how far a batch is padded depends
on how its lengths vary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from flops_fit.display.number_text import percent
from flops_fit.sweep.data.labels import (
    IGNORED,
    LabelRule,
    has_labels,
    num_elements,
    shapes_of,
    targets_of,
)

FIRST_LOOK = 64  # examples that show whether lengths differ
_GROUP = 8  # of them collated together
MOST_READ = 1024  # examples whose labels are counted if they do
_MOST_DRAWN = 1024  # examples in the batches drawn of one size
_COSTED = (1 / 6, 1 / 2, 5 / 6)  # quantiles of the batches whose FLOPs are counted
_MOST_COSTED = 16  # examples of such a batch

Collate = Callable[[list[Any]], Any]
Read = Callable[[Sequence[int]], list[Any]]


class NoLabelsError(Exception):
    """No example of some data has a label that counts."""


@dataclass(frozen=True)
class Lengths:
    """Examples that differ in their number of labels.

    Attributes:
        rule: Which labels count.
        indices: Examples to read, spread over the data.
        read: Reads examples by index.
        collate: From a list of examples to a batch.
    """

    rule: LabelRule
    indices: tuple[int, ...]
    read: Read
    collate: Collate
    _elements: dict[int, list[int]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Labels that count, of each example in `indices`."""
        counts: list[int] = []
        for k in range(0, len(self.indices), FIRST_LOOK):
            examples = self.read(self.indices[k : k + FIRST_LOOK])
            counts += [self.rule.count(self.collate([example])) for example in examples]
        return tuple(counts)

    @property
    def mean(self) -> float:
        """Mean number of labels that count in an example."""
        return float(np.mean(self.counts))

    @property
    def empty(self) -> list[int]:
        """Indices of the examples read without any label that counts."""
        return [i for i, n in zip(self.indices, self.counts, strict=True) if not n]

    def batch(self, number: int, batch_size: int) -> Any:
        """One of the batches drawn at random from the examples read, the same at each call."""
        generator = np.random.default_rng([number, batch_size])
        order = generator.permutation(self.indices)
        if batch_size <= len(order):  # each example is drawn about equally often
            passes, place = divmod(number, len(order) // batch_size)
            order = np.random.default_rng([passes, batch_size]).permutation(self.indices)
            order = order[place * batch_size : (place + 1) * batch_size]
        else:
            order = generator.choice(self.indices, batch_size)
        return self.collate(self.read(order.tolist()))

    def _sizes(self, batch_size: int) -> list[int]:
        """Labels in each of the batches of a size, padding included."""
        if batch_size not in self._elements:
            number = max(2, _MOST_DRAWN // batch_size)
            self._elements[batch_size] = [
                num_elements(self.batch(k, batch_size)) for k in range(number)
            ]
        return self._elements[batch_size]

    def elements(self, batch_size: int) -> float:
        """Mean number of labels an example, padding included, in batches of this size."""
        size = min(batch_size, _MOST_DRAWN)
        return float(np.mean(self._sizes(size))) / size

    def costed(self, batch_size: int) -> list[tuple[Any, float]]:
        """Batches to count FLOPs on, short to long, each with the labels that it stands for.

        Args:
            batch_size: Examples a step. Larger batches are padded further; the labels are scaled
                to it.
        """
        size = min(batch_size, _MOST_COSTED)
        sizes = self._sizes(size)
        order = np.argsort(sizes, kind="stable")
        chosen = [int(order[int(q * len(order))]) for q in _COSTED]
        # FLOPs grow about in proportion to the elements; these batches hold other than the mean.
        share = float(np.mean([sizes[k] for k in chosen])) / size
        labels = size * self.mean * share / self.elements(batch_size)
        return [(self.batch(k, size), labels) for k in chosen]

    def describe(self, batch_size: int, unit: str) -> str:
        """The figures, and what to do about the padding."""
        padded = self.elements(batch_size)
        if max(self.counts) == 1:
            return (
                f"dataset: the inputs of its examples differ in length: in batches of {batch_size} "
                f"one takes {padded:.4g} places on average, with padding; C counts them as they "
                "are padded. Each run records the C that it was really trained with"
            )
        text = (
            f"dataset: its examples differ in length: {min(self.counts):,} to "
            f"{max(self.counts):,} {unit} that count, {self.mean:.4g} on average in "
            f"{len(self.counts):,} examples"
        )
        if padded > 1.02 * self.mean:
            text += (
                f"; in batches of {batch_size} an example takes {padded:.4g} with padding and "
                f"labels that do not count ({percent(1 - self.mean / padded)}). D counts the "
                f"{unit} that count, C the whole. To spend less on padding, pack examples end to "
                "end or cut them to one length"
            )
        return f"{text}. Each run records the D and C that it was really trained with"


def lengths_of(
    read: Read,
    indices: Sequence[int],
    more: Sequence[int],
    collate: Collate,
    rule: LabelRule | None = None,
) -> Lengths | None:
    """The lengths of some data; None if all examples hold equally many labels that count.

    Args:
        read: Reads examples by index.
        indices: The examples to look at first, spread over the data.
        more: Those to read if they differ.
        collate: From a list of examples to a batch.
        rule: Which labels count; found out if None.

    Raises:
        NoLabelsError: No example has a label that counts.
        Exception: Whatever reading or collating raises.
    """
    examples = read(indices)
    groups = [examples[k : k + _GROUP] for k in range(0, len(examples), _GROUP)]
    batches = [collate(group) for group in groups]
    if all(map(has_labels, batches)):
        rule = rule or _rule(groups, batches, collate)
    else:
        rule = LabelRule(per_row=True)
    counts = {count for batch in batches for count in rule.count_rows(batch)}
    shapes = set(map(shapes_of, batches))
    if len(shapes) == 1 and len(counts) == 1 and counts != {0}:
        return None
    lengths = Lengths(rule, tuple(more), read, collate)
    if counts == {0} and not any(lengths.counts):
        raise NoLabelsError(
            f"none of the {len(more):,} examples read has a label that counts ({rule.describe()}), "
            "so that there is no loss"
        )
    return lengths


def _rule(groups: list[list[Any]], batches: list[Any], collate: Collate) -> LabelRule:
    """Which labels count: by the ignored value, else by a mask, else by what pads the targets."""
    if any(bool((targets_of(batch) == IGNORED).any()) for batch in batches):
        return LabelRule(ignored=IGNORED)
    mask = "attention_mask"
    if all(isinstance(batch, Mapping) for batch in batches):
        if all(mask in b and b[mask].shape == targets_of(b).shape for b in batches):
            return LabelRule(mask=mask)
    for group, batch in zip(groups, batches, strict=True):
        target = targets_of(batch)
        for row, example in zip(target, group, strict=False):
            filler = _filler(row, targets_of(collate([example])))
            if filler is not None:
                return LabelRule(ignored=filler)
    return LabelRule()


def _filler(row: torch.Tensor, alone: torch.Tensor) -> int | None:
    """The value that pads a row, found by comparing it with the example collated alone."""
    if row.ndim != 1 or alone.ndim != 2 or len(alone) != 1 or len(row) <= alone.shape[1]:
        return None
    length = alone.shape[1]
    for part, rest in ((row[:length], row[length:]), (row[-length:], row[:-length])):
        if torch.equal(part, alone[0]) and len(rest.unique()) == 1:
            return int(rest[0])
    return None
