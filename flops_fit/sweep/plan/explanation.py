"""What an error of the user's model or loss means, and what to do about it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from flops_fit.errors import in_short
from flops_fit.sweep.data.forms import text_fields, tokenise
from flops_fit.sweep.data.source import targets_of
from flops_fit.sweep.task.task import Task, outputs_of


def explained(error: Exception, task: Task, model: nn.Module, batch: Any) -> str:
    """An error in one line, with advice if its cause is known."""
    found = next(_advice(error, task, model, batch), "")
    return f"{in_short(error)}{'; ' if found else ''}{found}"


def _advice(error: Exception, task: Task, model: nn.Module, batch: Any) -> Iterator[str]:
    text = str(error)
    yield from _of_names(error, text, model, batch)
    for clues, advise in _KNOWN.items():
        if any(clue in text for clue in clues) and (advice := advise(model, batch)):
            yield advice


def _of_names(error: Exception, text: str, model: nn.Module, batch: Any) -> Iterator[str]:
    if not isinstance(batch, Mapping):
        return
    names = ", ".join(map(str, batch))
    texts = text_fields(batch)
    if texts and isinstance(error, KeyError | TypeError):
        yield (
            f"a batch holds text ({', '.join(texts)}): drop it from the data or, if it is what the "
            f"model is to learn, {tokenise(*texts)}"
        )
        return
    if isinstance(error, KeyError):
        yield f"a batch holds {names}"
    if isinstance(error, TypeError) and ("keyword argument" in text or "required pos" in text):
        taken = [name for name in inspect.signature(model.forward).parameters if name != "self"]
        yield (
            f"the model's forward takes {', '.join(taken) or 'nothing'}, a batch holds {names}, "
            "and all of it is passed by name: rename or drop columns of the data, or let forward "
            "take them"
        )


def _leaves(batch: Any) -> list[Any]:
    """All that the model is given."""
    return tree_leaves(dict(batch) if isinstance(batch, Mapping) else batch[0])


def _inputs(batch: Any) -> list[torch.Tensor]:
    return [leaf for leaf in _leaves(batch) if isinstance(leaf, torch.Tensor)]


def _span(tensors: list[torch.Tensor]) -> str:
    """The range of the integers among some tensors."""
    whole = [t for t in tensors if not (t.is_floating_point() or t.is_complex()) and t.numel()]
    if not whole:
        return "no integers"
    return f"{min(int(t.min()) for t in whole)} to {max(int(t.max()) for t in whole)}"


def _of_labels(model: nn.Module, batch: Any) -> str:
    targets = [leaf for leaf in tree_leaves(targets_of(batch)) if isinstance(leaf, torch.Tensor)]
    return (
        "class labels must run from 0 to the number of the model's outputs less one; in this batch "
        f"they run from {_span(targets)} (-100 marks labels that do not count)"
    )


def _of_ids(model: nn.Module, batch: Any) -> str:
    rows = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    return (
        f"the inputs hold indices from {_span(_inputs(batch))}, the model's embeddings have "
        f"{', '.join(map(str, rows)) or 'fewer'} rows: enlarge the vocabulary or the context"
    )


def _of_formats(model: nn.Module, batch: Any) -> str:
    parameter = next(model.parameters(), None)
    formats = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in _inputs(batch)})
    if parameter is None or not formats:
        return ""
    own = str(parameter.dtype).removeprefix("torch.")
    if formats == [own]:
        return ""
    return (
        f"the inputs are {', '.join(formats)}, the model's parameters {own}: convert the inputs in "
        f"the dataset, as x.to(torch.{own}), or build the model in float32, and set "
        "Recipe(precision=) for lower precision"
    )


def _of_outputs(model: nn.Module, batch: Any) -> str:
    try:
        with torch.no_grad():
            outputs = outputs_of(model, batch)
    except Exception:
        if any(isinstance(leaf, str) for leaf in _leaves(batch)):
            return f"the inputs are text: {tokenise()}"
        return "the model expects tensors, but the batch holds others"
    if isinstance(outputs, torch.Tensor):
        targets = targets_of(batch)
        if isinstance(targets, torch.Tensor):
            return ""
        return f"the batch's targets are a {type(targets).__name__}, not a tensor"
    name = type(outputs).__name__
    wanted = (
        "out.logits" if isinstance(outputs, Mapping) or hasattr(outputs, "logits") else "out[0]"
    )
    if outputs is None:
        return "the model returns None: is a `return` missing in its forward?"
    return (
        f"the model returns a {name}, not a tensor: let the loss take its part, as "
        f"loss_fn=lambda out, y: F.cross_entropy({wanted}, y)"
    )


def _fixed(advice: str) -> Callable[[nn.Module, Any], str]:
    return lambda model, batch: advice


def _of_shapes(model: nn.Module, batch: Any) -> str:
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in _inputs(batch))
    return f"the inputs of the model are of shape {shapes}" if shapes else ""


_KNOWN: dict[tuple[str, ...], Callable[[nn.Module, Any], str]] = {
    ("more than 1 value per channel",): _fixed(
        "batch normalisation cannot be trained on one example at a time: set Recipe(batch_size=) "
        "so that each micro-batch has two or more, or use GroupNorm or LayerNorm"
    ),
    ("is out of bounds", "device-side assert"): _of_labels,
    ("index out of range",): _of_ids,
    ("softmax_lastdim_kernel_impl\" not implemented for 'Long'", "nll_loss"): _fixed(
        "the loss is called as loss_fn(outputs, targets): are its two arguments swapped?"
    ),
    ("expected target dtype to be Long", "expected scalar type Long but found"): _fixed(
        "class labels must be int64: use y.long() in the dataset, or a loss for numbers, as "
        "F.mse_loss"
    ),
    ("multi-target not supported",): _fixed(
        "class labels must be one number for each example: drop the last axis with y.squeeze(-1)"
    ),
    ("must be Tensor, not", "has no attribute"): _of_outputs,
    ("not compiled with CUDA", "on the same device", "No CUDA GPUs", "NVIDIA driver"): _fixed(
        "do not call .cuda() or .to(device) in model and loss: flops-fit moves model and batches"
    ),
    ("same dtype", "expected scalar type", "not implemented for", "Input type"): _of_formats,
    (
        "cannot be multiplied",
        "Given normalized_shape",
        "Given groups",
        "size of tensor",
    ): _of_shapes,
}
