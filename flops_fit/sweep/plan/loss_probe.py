"""What the loss is a mean of, found by evaluating the same examples in two batchings.

A mean over rows weighs batches by rows, a mean over labels by the labels that count. The loss of
all examples together must be the weighted mean of the losses of their parts; the weights for which
it is are the ones that the sweep uses.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from flops_fit.errors import ArgumentError
from flops_fit.records import Size
from flops_fit.runtime.rng import seeded
from flops_fit.sweep.data.examples import named
from flops_fit.sweep.data.labels import IGNORED, LabelRule, has_labels, targets_of
from flops_fit.sweep.data.lengths import Lengths
from flops_fit.sweep.data.source import Source, count_examples, first_examples, is_iterable, spread
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.task.weighting import Weighting
from flops_fit.warn import warn_user

_ROWS = 8  # examples that the loss is probed with
_TOLERANCE = 1e-3  # of a prediction, relative to the loss
_HALF_TOLERANCE = 2e-2  # the same where the model computes in 16 bits


def find_weighting(task: Task, source: Source, size: Size) -> Weighting:
    """What a batch's loss weighs, with a warning where the answer may surprise.

    Args:
        task: Model and loss, which have been tried on a batch.
        source: The data.
        size: The size of the model to probe with.
    """
    lengths = source.lengths or source.held_out_lengths
    guess = Weighting("labels", lengths.rule) if lengths else Weighting()
    try:
        found = _probe(task, source, size, lengths) or guess
    except Exception:  # a model that cannot be evaluated so is trained as the data suggest
        found = guess
    if source.lengths is not None:
        batch_size = source.batch_size or _ROWS
        warn_user(source.lengths.describe(batch_size, source.unit))
        if empty := source.lengths.empty:
            warn_user(
                f"dataset: {len(empty):,} of {len(source.lengths.counts):,} examples read have no "
                f"label that counts (training examples {named(empty)}); they weigh nothing in any "
                "loss, but cost FLOPs: leave them out"
            )
            _check_empty(task, source, size, source.lengths)
    if found.fixed_batch:
        warn_user(
            "loss_fn: the loss of a batch is not the mean of the losses of its parts, neither by "
            "rows nor by labels; held-out examples are therefore evaluated in batches of one size "
            "for all trials, and training depends a little on how a step's batch is divided. If it "
            "is a weighted mean, return (sum, count): the sum of the losses and of the weights"
        )
    return found


@seeded(0)
@torch.no_grad()
def _check_empty(task: Task, source: Source, size: Size, lengths: Lengths) -> None:
    """Check that rows without any label that counts leave the loss of others finite.

    Raises:
        ArgumentError: They do not.
    """
    fullest = lengths.indices[max(range(len(lengths.counts)), key=lengths.counts.__getitem__)]
    batch = source.collate(lengths.read([lengths.empty[0], fullest]))
    if not math.isfinite(float(task.loss(task.build_quietly(size).eval(), batch))):
        raise ArgumentError(
            f"loss_fn: it is not finite for a batch with a row that has no label that counts "
            f"({len(lengths.empty):,} of {len(lengths.counts):,} training examples read: "
            f"{named(lengths.empty)}); leave these rows out, or divide by at least 1"
        )


@dataclass(frozen=True)
class _Trials:
    """Losses of all rows together and of some parts of them.

    Attributes:
        whole: The batch of all rows.
        parts: Pairs of batches that hold the rows of `whole` between them.
        losses: The loss of each of these batches.
        loss: The loss of the whole.
    """

    whole: Any
    parts: list[tuple[Any, Any]]
    losses: list[tuple[float, float]]
    loss: float

    def error(self, weighting: Weighting) -> float:
        """Largest relative error of the whole's loss, as predicted from the parts."""
        errors = []
        for parts, losses in zip(self.parts, self.losses, strict=True):
            weights = [weighting.weight(part) for part in parts]
            if not sum(weights):
                return math.inf
            terms = [w * x for w, x in zip(weights, losses, strict=True) if w]
            errors.append(abs(sum(terms) / sum(weights) - self.loss))
        largest = max(errors) / max(abs(self.loss), 1e-12)
        return largest if all(map(math.isfinite, errors)) else math.inf


@seeded(0)
def _probe(task: Task, source: Source, size: Size, lengths: Lengths | None) -> Weighting | None:
    """The weighting that the loss shows; None if it is random, so that it shows none."""
    rule = lengths.rule if lengths else None
    examples = _examples(source, lengths)
    if len(examples) < 2:
        return None
    model = task.build_quietly(size).eval()
    collate = source.collate if lengths is source.lengths else source.held_out_collate
    whole = collate(examples)
    if isinstance(task.raw_loss(model, whole), tuple):
        return Weighting("returned", rule)
    trials = _try(task, _perturbed(model), whole, len(examples))
    if trials is None:
        return None
    tolerance = _TOLERANCE
    if any(p.dtype in (torch.bfloat16, torch.float16) for p in model.parameters()):
        tolerance = _HALF_TOLERANCE
    candidates = [Weighting(), *(Weighting("labels", each) for each in _rules(whole, rule))]
    if lengths and lengths.empty:  # rows without labels weigh nothing in a mean over labels
        candidates.insert(0, Weighting("labels", rule))
    errors = {candidate: trials.error(candidate) for candidate in candidates}
    best = min(errors, key=lambda candidate: errors[candidate])
    if errors[candidates[0]] <= max(1e-6, 10 * errors[best]) and errors[candidates[0]] <= tolerance:
        best = candidates[0]  # of equal candidates the plainest
    if not errors[best] <= tolerance:
        return Weighting("labels" if rule else "rows", rule, fixed_batch=True)
    if best.by == "rows":
        best = Weighting("rows", rule)
    return replace(
        best,
        fixed_batch=_depends_on_padding(task, model, source, examples, best, collate, tolerance),
    )


def _examples(source: Source, lengths: Lengths | None) -> list[Any]:
    """A few examples, short and long."""
    if lengths is None:
        if is_iterable(source.train):
            return first_examples(source.train, _ROWS)
        return [source.train[index] for index in spread(len(source.train), _ROWS)]
    ranked = sorted(zip(lengths.counts, lengths.indices, strict=True))
    ranked = [pair for pair in ranked if pair[0]]
    chosen = spread(len(ranked), _ROWS)
    return lengths.read([ranked[k][1] for k in chosen])


def _rules(whole: Any, rule: LabelRule | None) -> list[LabelRule]:
    """The rules by which labels may count, the likeliest first."""
    if not has_labels(whole):
        return []
    target = targets_of(whole)
    rules = [rule] if rule else []
    rules.append(LabelRule(ignored=IGNORED))
    if isinstance(whole, Mapping) and "attention_mask" in whole:
        if whole["attention_mask"].shape == target.shape:
            rules.append(LabelRule(mask="attention_mask"))
    if target.ndim > 1:  # what most rows end or begin with may be padding
        ends = Counter(target[:, -1].flatten().tolist() + target[:, 0].flatten().tolist())
        rules += [LabelRule(ignored=int(value)) for value, n in ends.most_common(2) if n > 1]
    rules.append(LabelRule())
    shifted = [replace(each, skipped=1) for each in rules] if target.ndim > 1 else []
    return list(dict.fromkeys([*rules, *shifted]))


def _perturbed(model: nn.Module) -> nn.Module:
    """A copy of the weights with noise: a new model may have one loss for all labels."""
    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point():
                scale = 0.5 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1
                p.add_(torch.randn_like(p) * scale)
    return model


@torch.no_grad()
def _try(task: Task, model: nn.Module, whole: Any, num_rows: int) -> _Trials | None:
    """The losses of a batch and of its parts; None if it is random or cannot be divided."""
    if count_examples(whole) != num_rows:
        return None
    loss = float(task.loss(model, whole))
    if loss != float(task.loss(model, whole)) or not torch.isfinite(torch.tensor(loss)):
        return None
    bounds = sorted({1, num_rows // 2, num_rows - 1})
    parts = [(_rows(whole, 0, k), _rows(whole, k, num_rows)) for k in bounds]
    losses = [(float(task.loss(model, one)), float(task.loss(model, two))) for one, two in parts]
    return _Trials(whole, parts, losses, loss)


def _rows(batch: Any, first: int, last: int) -> Any:
    count = count_examples(batch)

    def cut(leaf: Any) -> Any:
        per_row = isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and len(leaf) == count
        return leaf[first:last] if per_row else leaf

    return tree_map(cut, dict(batch) if isinstance(batch, Mapping) else batch)


@torch.no_grad()
def _depends_on_padding(
    task: Task,
    model: nn.Module,
    source: Source,
    examples: Sequence[Any],
    weighting: Weighting,
    collate: Any,
    tolerance: float,
) -> bool:
    """Whether rows collated alone have another loss than in a batch with longer ones."""
    if weighting.rule is None or source.draws:
        return False
    whole = float(task.loss(model, collate(list(examples))))
    alone = [collate([example]) for example in examples]
    pairs = [(weighting.weight(batch), float(task.loss(model, batch))) for batch in alone]
    mean = sum(w * x for w, x in pairs if w) / sum(w for w, _ in pairs)
    return abs(mean - whole) > tolerance * max(abs(whole), 1e-12)
