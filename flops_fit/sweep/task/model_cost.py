"""Parameters and FLOPs of a model, counted on the meta device: no memory, no arithmetic.

C is measured, not assumed: 6ND is off by 2 to 49 per cent for small GPTs and by hundreds of per
cent for convolutional networks. Counted are forward and backward pass of model and loss
(`FlopCounterMode`). The optimiser's few FLOPs per parameter are left out, as is customary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import UninitializedParameter
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from flops_fit.errors import ArgumentError, in_short
from flops_fit.records import Size
from flops_fit.runtime.rng import seeded
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.task.count_curve import CountCurve
from flops_fit.sweep.task.count_notes import Noted, count_notes, modules_called
from flops_fit.sweep.task.hashing import digest
from flops_fit.sweep.task.task import Task
from flops_fit.validate import is_count, is_positive
from flops_fit.warn import warn_user

_MOST_REAL_FLOPS = 3e10  # of a count on real tensors, in place of one on the meta device

FlopsConvention = Literal["measured", "6ND"] | Callable[[nn.Module], float]


@dataclass(frozen=True)
class ModelCost:
    """Parameters and FLOPs of a model of one size.

    Attributes:
        size: Value of the size parameter.
        num_params: N, by the model's own `num_params()`.
        flops_per_token: FLOPs for one unit of D (token or example), forward and backward.
        shapes: Hash of the names and shapes of all parameters.
        convention: How FLOPs were counted: "measured", "measured on one batch", "6ND", "custom".
        notes: What the count leaves out or has twice.
    """

    size: Size
    num_params: int
    flops_per_token: float
    shapes: str
    convention: str
    notes: tuple[str, ...] = ()


@seeded(0)
def build_empty(task: Task, size: Size) -> nn.Module:
    """A model on the meta device; on the CPU if its constructor fails on the meta device."""
    try:
        with torch.device("meta"):
            return task.build_quietly(size)
    except Exception:
        return task.build_quietly(size)


def params_of(task: Task, size: Size) -> int:
    """N of one size, by the model's own `num_params()`, without measuring FLOPs.

    Raises:
        ArgumentError: The model has no valid `num_params()`.
    """
    return count_params(build_empty(task, size), size)


def shapes_of(model: nn.Module) -> str:
    """Hash of the names and shapes of all parameters. It is part of every trial id."""
    return digest({name: list(p.shape) for name, p in model.named_parameters()})


def cost_of(
    task: Task,
    source: Source,
    size: Size,
    flops: FlopsConvention = "measured",
    curve: CountCurve | None = None,
) -> ModelCost:
    """Parameters and FLOPs of one size.

    Args:
        task: Model and loss.
        source: The data.
        size: Value of the size parameter.
        flops: How to count.
        curve: The counts of other sizes, which may save this one.

    Raises:
        ArgumentError: The model has no valid `num_params()`, or a custom count is not positive.
        Exception: Whatever the model or the loss raises on a real batch.
    """
    model = build_empty(task, size)
    num_params = count_params(model, size)
    shapes = shapes_of(model)
    count = 6.0 * num_params
    convention = "6ND"
    notes: set[str] = set()
    if callable(flops):
        count = _custom(source, model, size, flops)
        convention = "custom"
    elif flops != "6ND":
        measured, convention = _measured(task, source, model, size, curve or CountCurve(), notes)
        count = measured or count  # 6ND if nothing could be counted
    return ModelCost(size, num_params, count, shapes, convention, tuple(sorted(notes)))


def _custom(
    source: Source, model: nn.Module, size: Size, flops: Callable[[nn.Module], float]
) -> float:
    try:
        count: Any = flops(model)
    except Exception as error:
        raise ArgumentError(f"flops: it raised {in_short(error)}") from error
    if not is_positive(count):
        raise ArgumentError(
            f"flops: expected FLOPs for one of the {source.unit}, a positive number; got "
            f"{count!r} at size {size!r}"
        )
    return float(count)


@seeded(0)
def _measured(
    task: Task,
    source: Source,
    model: nn.Module,
    size: Size,
    curve: CountCurve,
    notes: set[str],
) -> tuple[float, str]:
    """FLOPs for one unit of D, and where they were counted.

    They are counted on the meta device; if that fails, on a real batch; if that fails too, the
    count is 0 and the caller uses 6ND. Each fallback is announced by a warning. What the count
    leaves out or has twice is added to `notes`.

    Raises:
        Exception: Whatever the model or the loss raises on a real batch.
    """
    costed = source.costed
    try:
        # `build_empty` may have fallen back to the CPU, where batches on meta cannot be used.
        if any(not p.is_meta for p in model.parameters()):
            raise RuntimeError("its constructor creates real tensors")
        on_cpu = None
        if _is_small(model, sum(tokens for _, tokens in costed)):
            on_cpu = partial(_counts_without_onednn, task, source, size)
        counts = curve.counts_at(
            size,
            lambda: tuple(_count(task, model, _to_meta(batch), notes) for batch, _ in costed),
            on_cpu,
        )
        if count := mean(c / tokens for c, (_, tokens) in zip(counts, costed, strict=True)):
            return count, "measured"
        why = "the meta device shows no matrix product or convolution"
    except Exception as error:
        why = f"the model or loss does not run on the meta device ({_short(error)})"
    try:
        counts = _counts_on_cpu(task, source, size, notes)
        count = mean(c / tokens for c, (_, tokens) in zip(counts, costed, strict=True))
    except Exception as error:
        # Only counting fails, or else the error is the user's and is raised here.
        task.loss(task.build_quietly(size).train(), source.sample).backward()
        why = f"counting fails on a real batch ({_short(error)})"
        count = 0.0
    _warn(why, "one real batch" if count else "6ND")
    return count, "measured on one batch" if count else "6ND"


def _is_small(model: nn.Module, tokens: float) -> bool:
    """Whether forward and backward of real tensors take about a second at most, by 6 N D."""
    return 6.0 * sum(p.numel() for p in model.parameters()) * tokens <= _MOST_REAL_FLOPS


def _counts_on_cpu(task: Task, source: Source, size: Size, notes: set[str]) -> tuple[float, ...]:
    """FLOPs of each batch, on real tensors."""
    # `FlopCounterMode` does not count the fused attention kernel of the CPU.
    with sdpa_kernel(SDPBackend.MATH):
        model = task.build_quietly(size)
        return tuple(_count(task, model, batch, notes) for batch, _ in source.costed)


def _counts_without_onednn(task: Task, source: Source, size: Size) -> tuple[float, ...]:
    """The same without oneDNN's kernels: a whole LSTM is one of them, and is not counted."""
    before = torch.backends.mkldnn.set_flags(_enabled=False)[0]
    try:
        return _counts_on_cpu(task, source, size, set())
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before)


def _count(task: Task, model: nn.Module, batch: Any, notes: set[str]) -> float:
    with FlopCounterMode(display=False) as counter, Noted() as noted:
        loss = task.loss(model.train(), batch)
        with modules_called() as called:
            loss.backward()
    notes.update(count_notes(noted, recomputed=bool(called)))
    return float(counter.get_total_flops())


def _to_meta(batch: Any) -> Any:
    if isinstance(batch, Mapping):
        batch = dict(batch)
    return tree_map(lambda x: x.detach().to("meta") if isinstance(x, torch.Tensor) else x, batch)


def _short(error: Exception) -> str:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return first_line[:120]


def _warn(why: str, instead: str) -> None:
    warn_user(f"FLOPs: {why}; counting by {instead} instead")


_HOW_TO_COUNT = (
    "add `def num_params(self): return sum(p.numel() for p in self.parameters())`, or, if the "
    "class is not yours, pass a function that builds the model and returns it after "
    "`model.num_params = lambda: sum(p.numel() for p in model.parameters())`"
)


def count_params(model: object, size: Size) -> int:
    """N, by the model's own `num_params()`.

    Raises:
        ArgumentError: It is not a module, or its `num_params()` is missing or invalid.
    """
    name = type(model).__name__
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model_cls: expected it to return an nn.Module, got {name}")
    lazy = [key for key, p in model.named_parameters() if isinstance(p, UninitializedParameter)]
    if lazy:
        raise ArgumentError(
            f"model_cls: {name} has lazy layers ({', '.join(lazy[:3])}), whose parameters have no "
            "shape before a batch has run: give these layers their input size"
        )
    own_count: Any = getattr(model, "num_params", None)
    if own_count is None:
        raise ArgumentError(f"model_cls: {name} has no num_params(); {_HOW_TO_COUNT}")
    if not callable(own_count):
        raise ArgumentError(f"model_cls: {name}.num_params must be a method, not a value")
    try:
        count = own_count()
    except Exception as error:
        raise ArgumentError(f"model_cls: num_params() raised {in_short(error)}") from error
    if not is_count(count):
        raise ArgumentError(
            f"model_cls: num_params() must return a positive int, got {count!r} at size {size!r}"
        )
    return int(count)
