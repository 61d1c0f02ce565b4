"""The tensors of a model for a checkpoint, and a model set to them again, with the same bits.

`load_state_dict` alone copies element by element. It cannot write to expanded or overlapping
buffers, knows none that the first forward pass makes, and leaves out those that are not persistent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from flops_fit.sweep.training.state_tree import flat_bytes, view_of


def model_state(model: nn.Module) -> dict[str, Any]:
    """All parameters and buffers of a model, and whatever else its state dict holds.

    The keys are a stored format.
    """
    tensors = dict(_tensors_of(model))
    others = {key: value for key, value in model.state_dict().items() if key not in tensors}
    return {"tensors": tensors, "others": others}


def restore_model(model: nn.Module, state: Mapping[str, Any], device: torch.device) -> None:
    """Set a model to a state returned by `model_state`.

    Args:
        model: A newly built model, on its device. Its optimiser keeps its parameters.
        state: The state, in host memory.
        device: Device of buffers that the new model does not have yet.

    Raises:
        ValueError: The parameters are others, or of other shapes.
    """
    saved, live = state["tensors"], dict(_tensors_of(model))
    _require_same_parameters(model, saved)
    for name in live.keys() - saved.keys():
        _set_buffer(model, name, None)
    for name, tensor in saved.items():
        if not _has_storage(tensor):  # None, or sparse
            _set_tensor(model, name, tensor)
    present = _by_storage(live)
    for names in _by_storage(saved):
        if names not in present or not _overwritten(names, saved, live):
            _replace(model, names, saved, live, device)
    if state["others"]:
        model.load_state_dict(state["others"], strict=False)


def _overwritten(names: list[str], saved: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether the storage of these tensors has the layout of the saved one and was overwritten.

    Whatever else refers to the storage sees the restored values too.
    """
    content, storage = flat_bytes(saved[names[0]]), flat_bytes(live[names[0]])
    shifts = {_start(live[name]) - _start(saved[name]) for name in names}
    shift = shifts.pop()
    fits = 0 <= shift <= len(storage) - len(content)
    if shifts or not fits or not all(_same_layout(saved[name], live[name]) for name in names):
        return False
    storage[shift : shift + len(content)].copy_(content)
    return True


def _start(tensor: torch.Tensor) -> int:
    """The place of a tensor in its storage, in bytes."""
    return int(tensor.storage_offset()) * tensor.element_size()


def _same_layout(one: torch.Tensor, two: torch.Tensor) -> bool:
    return (
        one.dtype == two.dtype
        and one.shape == two.shape
        and one.stride() == two.stride()
        and one.is_conj() == two.is_conj()
        and one.is_neg() == two.is_neg()
    )


def _replace(
    model: nn.Module,
    names: list[str],
    saved: Mapping[str, Any],
    live: Mapping[str, Any],
    device: torch.device,
) -> None:
    """Give these tensors a new storage, which they share."""
    present = next((live[name] for name in names if live.get(name) is not None), None)
    content = flat_bytes(saved[names[0]]).to(device if present is None else present.device)
    for name in names:
        _set_tensor(model, name, view_of(content, saved[name]))


def _by_storage(tensors: Mapping[str, Any]) -> list[list[str]]:
    """The names of the tensors with a storage, grouped by it; an empty one is shared by none."""
    groups: dict[object, list[str]] = {}
    for name, tensor in tensors.items():
        if _has_storage(tensor):
            address = tensor.untyped_storage().data_ptr()
            groups.setdefault((tensor.device, address) if address else name, []).append(name)
    return list(groups.values())


def _has_storage(tensor: Any) -> bool:
    return tensor is not None and tensor.layout is torch.strided and not tensor.is_meta


def _tensors_of(model: nn.Module) -> Iterator[tuple[str, torch.Tensor | None]]:
    """All parameters and buffers by name; tied ones under each name, those not made yet as None."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            yield f"{prefix}.{name}" if prefix else name, tensor


def _require_same_parameters(model: nn.Module, saved: Mapping[str, Any]) -> None:
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name not in saved or saved[name] is None:
            raise ValueError(f"it holds no parameter {name!r}")
        if saved[name].shape != parameter.shape or saved[name].dtype != parameter.dtype:
            raise ValueError(
                f"its parameter {name!r} is {saved[name].dtype} of shape "
                f"{tuple(saved[name].shape)}, the model's {parameter.dtype} of shape "
                f"{tuple(parameter.shape)}"
            )


def _set_tensor(model: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
    """Give a name another tensor; a parameter stays the object that the optimiser knows."""
    prefix, _, own_name = name.rpartition(".")
    parameter = model.get_submodule(prefix)._parameters.get(own_name)
    if parameter is None:
        _set_buffer(model, name, tensor)
    elif tensor is not None:
        parameter.data = tensor


def _set_buffer(model: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
    prefix, _, own_name = name.rpartition(".")
    module = model.get_submodule(prefix)
    if own_name in module._buffers:
        module._buffers[own_name] = tensor
    elif own_name not in module._parameters:  # the first forward pass registers it
        module.register_buffer(own_name, tensor)


def overlaps(tensor: torch.Tensor) -> bool:
    """Whether two elements may share one place, judged by strides, as torch does."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += stride * (size - 1)
    return False
