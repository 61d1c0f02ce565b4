"""A model's parameters and buffers, taken out for a checkpoint and put back with the same bits.

`load_state_dict` copies into the tensors that the model has. That fails for buffers that a model
makes, enlarges or drops while it trains, and for those that hold one element in several places.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


def non_persistent_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that the model's state dict leaves out: training may have changed them."""
    persistent = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in persistent}


@torch.no_grad()
def restore_weights(
    model: nn.Module, persistent: Mapping[str, object], others: Mapping[str, torch.Tensor]
) -> None:
    """Put back parameters and buffers.

    Args:
        model: A new model of the same class and size.
        persistent: The state dict of the model that was saved.
        others: Its other buffers.

    Raises:
        RuntimeError: The state is of another model.
    """
    rest = dict(persistent)
    buffers = dict(model.named_buffers(remove_duplicate=False))
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for saved, is_persistent in ((dict(persistent), True), (others, False)):
        for name, value in saved.items():
            if not isinstance(value, torch.Tensor) or name in parameters:
                continue
            if _owner(model, name) is not None:
                _restore_buffer(model, name, value, buffers.get(name), is_persistent)
                rest.pop(name, None)
    for name in buffers.keys() - persistent.keys() - others.keys():
        if buffers[name] is not None and name in dict(model.named_buffers()):
            module, leaf = _owner(model, name), name.rpartition(".")[2]
            assert module is not None
            module._buffers[leaf] = None  # training has dropped it
    found = model.load_state_dict(rest, strict=False)
    lacking = set(found.missing_keys) - persistent.keys() - others.keys()
    if lacking or found.unexpected_keys:
        raise RuntimeError(f"missing {sorted(lacking)}, unexpected {found.unexpected_keys}")


def _owner(model: nn.Module, name: str) -> nn.Module | None:
    """The module that a buffer of this name belongs to; None if there is none."""
    path, _, leaf = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return None
    taken = hasattr(module, leaf) and leaf not in module._buffers
    return None if taken or leaf == "_extra_state" else module


def _restore_buffer(
    model: nn.Module, name: str, value: torch.Tensor, own: torch.Tensor | None, persistent: bool
) -> None:
    if own is not None and (own.shape, own.dtype) == (value.shape, value.dtype):
        if not value.is_meta:
            _fill(own, value)
        return
    module = _owner(model, name)
    assert module is not None
    first = next(model.parameters(), value)
    value = value if value.is_meta else value.to(first.device)
    module.register_buffer(name.rpartition(".")[2], value, persistent=persistent)


def _fill(own: torch.Tensor, value: torch.Tensor) -> None:
    """Write a value into a tensor, though several of its elements may share one place."""
    length = own.untyped_storage().nbytes() // own.element_size()
    if own.numel() <= length and not overlaps(own):
        own.copy_(value)
        return
    places = torch.arange(length).as_strided(own.shape, own.stride(), own.storage_offset())
    flat = own.detach().as_strided((length,), (1,), 0)
    flat[places.reshape(-1).to(own.device)] = value.to(own.device).reshape(-1)


def overlaps(tensor: torch.Tensor) -> bool:
    """Whether two elements may share one place: judged by strides, as torch does."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False
