"""Weights of trained models on disk: a state dict as safetensors, with a note on the model.

    <folder>/<trial_id>-<code>.safetensors

Nothing is pickled. The note is JSON in the file's header. It holds what it takes to build the model
again: the name of its class, its size and its other arguments, as far as they are plain values.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from flops_fit.records import Size, Trial
from flops_fit.runtime.atomic_write import move_into_place
from flops_fit.sweep.task.task import Task

SUFFIX = ".safetensors"
_NOTE = "flops_fit"  # key in the header; a stored name


@dataclass(frozen=True)
class Note:
    """What a file of weights says about its model. The names are a stored format.

    Attributes:
        trial_id: The trial that trained it.
        loss: Its held-out loss.
        model: Dotted name of its class.
        size_param: Name of the argument that sets the size.
        size: Its value.
        model_kwargs: The other arguments, those that are plain values.
        not_plain: Names of the other arguments that are not.
        left_out: Names in the state dict whose values are no plain tensors.
    """

    trial_id: str
    loss: float
    model: str
    size_param: str
    size: Size
    model_kwargs: dict[str, Any]
    not_plain: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def write(path: Path, model: nn.Module, task: Task, trial: Trial, loss: float) -> None:
    """Write the weights of a trained model; the file is there whole or not at all.

    Args:
        path: The file. Its folder is private to the user.
        model: The model, as `task` built it.
        task: What built it.
        trial: What it was trained as.
        loss: Its held-out loss.

    Raises:
        OSError: The file cannot be written.
    """
    state = model.state_dict()
    # Tied weights are stored once for each name, so that `load_state_dict` needs no special care.
    tensors = {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in state.items()
        if _is_plain_tensor(value)
    }
    plain = {name: value for name, value in task.model_kwargs.items() if _is_json(value)}
    note = Note(
        trial.trial_id,
        loss,
        task.model_name,
        task.size_param,
        trial.size,
        plain,
        not_plain=tuple(task.model_kwargs.keys() - plain.keys()),
        left_out=tuple(state.keys() - tensors.keys()),
    )
    path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, unfinished, {"format": "pt", _NOTE: json.dumps(asdict(note))})
        unfinished.chmod(0o600)
        move_into_place(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def read_note(path: Path) -> Note | None:
    """The note of a file of weights; None if it is damaged or has none."""
    try:
        with safe_open(path, framework="pt") as file:
            fields: Mapping[str, Any] = json.loads(file.metadata()[_NOTE])
        return Note(**{**fields, **{key: tuple(fields[key]) for key in ("not_plain", "left_out")}})
    except Exception:  # safetensors raises an error of its own, which is no public class
        return None


def read(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a file of weights, in host memory."""
    return load_file(path)


def _is_plain_tensor(value: object) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and not (value.is_meta or value.is_quantized or value.is_nested)
    )


def _is_json(value: object) -> bool:
    """Whether a value is the same after it was written as JSON."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False
