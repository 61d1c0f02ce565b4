"""Checkpoints of a running trial: written beside and renamed, verified by hash, never unpickled.

    <folder>/000000001234/      one checkpoint, named for its step
        tensors.safetensors     every tensor
        state.json              everything else, and where each tensor belongs
        manifest.json           SHA-256 of the other two, written last

A state is a tree of dicts, lists, tuples, tensors and plain values. The previous checkpoint is
removed only after the new one has been read back and verified.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from flops_fit.runtime.atomic_write import sync_folder

SCHEMA = 2
_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_MANIFEST = "manifest.json"
_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
# Types that safetensors does not store in all the versions that we accept.
_STORED_AS_BYTES = {
    value
    for name, value in _DTYPES.items()
    if value.is_complex or name.startswith(("float8", "uint16", "uint32", "uint64"))
}
_LOG = logging.getLogger("flops_fit")


class DamagedError(Exception):
    """A checkpoint cannot be used: it is incomplete, altered, or of another trial."""


@dataclass(frozen=True)
class Keeper:
    """The checkpoints of one trial.

    Attributes:
        folder: Their folder, which holds nothing else.
        every_s: Least seconds between two of them.
    """

    folder: Path
    every_s: float

    def exists(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return bool(self._checkpoints())

    def save(self, step: int, state: Mapping[str, Any]) -> bool:
        """Save a state and remove the previous one.

        Returns:
            Whether it was saved. If not, a warning is logged and the previous checkpoint stays.
        """
        unfinished = self.folder / f".{step}.{os.getpid()}.tmp"
        try:
            _write(unfinished, step, state)
            _read(unfinished)
            saved = self._rename(unfinished, step)
        except Exception as error:  # training continues, whatever went wrong
            shutil.rmtree(unfinished, ignore_errors=True)
            _LOG.warning(
                "the checkpoint of step %d could not be saved in %s (%s); training continues",
                step, self.folder, error,
            )  # fmt: skip
            return False
        for other in self.folder.iterdir():  # older ones, and unfinished ones of killed processes
            if other != saved:
                shutil.rmtree(other, ignore_errors=True)
        return True

    def _rename(self, unfinished: Path, step: int) -> Path:
        """Give a written checkpoint its name; an earlier one of the same step is moved away."""
        saved = self.folder / f"{step:012d}"
        if saved.exists():
            saved.rename(self.folder / f".{step}.{os.getpid()}.old")
        unfinished.rename(saved)
        sync_folder(self.folder)
        return saved

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """The latest intact checkpoint as (step, state), or None; a warning names damaged ones."""
        for saved in reversed(self._checkpoints()):
            try:
                return _read(saved)
            except DamagedError as error:
                _LOG.warning(
                    "checkpoint %s is damaged (%s); the trial resumes from the previous one if "
                    "there is one, else it starts over",
                    saved,
                    error,
                )
        return None

    def clear(self) -> None:
        """Remove all checkpoints, once the trial is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _checkpoints(self) -> list[Path]:
        """The finished checkpoints, oldest first; names of unfinished ones are not numbers."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if path.name.isdigit())


def _write(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, readable by the user only, and make it last through a power failure."""
    tensors: dict[str, torch.Tensor] = {}
    skeleton = {"schema": SCHEMA, "step": step, "state": _pack(dict(state), tensors)}
    files = {_TENSORS: save(tensors), _STATE: json.dumps(skeleton).encode()}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    folder.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700)
    for name, data in {**files, _MANIFEST: json.dumps(hashes).encode()}.items():
        with open(folder / name, "wb", opener=_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    sync_folder(folder)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read(folder: Path) -> tuple[int, dict[str, Any]]:
    """A checkpoint as (step, state).

    Raises:
        DamagedError: A file is missing or altered, or the schema is another.
    """
    try:
        hashes = json.loads((folder / _MANIFEST).read_bytes())
        files = {name: (folder / name).read_bytes() for name in (_TENSORS, _STATE)}
    except (OSError, ValueError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from error
    for name, data in files.items():
        if not isinstance(hashes, dict) or hashlib.sha256(data).hexdigest() != hashes.get(name):
            raise DamagedError(f"{name} does not match its hash")
    skeleton = json.loads(files[_STATE])
    if skeleton["schema"] != SCHEMA:
        raise DamagedError(f"schema {skeleton['schema']}; this version reads {SCHEMA}")
    return skeleton["step"], _unpack(skeleton["state"], load(files[_TENSORS]))


def _pack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A tree as JSON; tensors are moved to `tensors` and replaced by their keys."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return _pack_tensor(value.detach(), tensors)
    if isinstance(value, Mapping):
        return {"dict": [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, tensors) for item in value]}
    raise TypeError(f"a {type(value).__name__} cannot be saved without pickle")


def _pack_tensor(value: torch.Tensor, tensors: dict[str, torch.Tensor]) -> Any:
    """A tensor's key in `tensors`; of types that safetensors lacks, with its type and shape."""
    if value.layout is not torch.strided or value.is_quantized:
        raise TypeError(f"a tensor of layout {value.layout}, type {value.dtype} cannot be saved")
    name = str(value.dtype).removeprefix("torch.")
    shape = list(value.shape)
    if value.is_meta:  # it has no content
        return {"meta": [name, shape]}
    key = str(len(tensors))
    whole = value.resolve_conj().resolve_neg().cpu().contiguous().clone()
    if value.dtype in _STORED_AS_BYTES:
        tensors[key] = whole.reshape(-1).view(torch.uint8)
        return {"bytes": [key, name, shape]}
    tensors[key] = whole
    return {"tensor": key}


def why_not_saved(state: Mapping[str, Any]) -> str:
    """Why a state cannot be saved; empty if it can."""
    try:
        _pack(dict(state), {})
    except Exception as error:
        return str(error)
    return ""


def _unpack(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The tree that `_pack` was given."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "meta":
        return torch.empty(content[1], dtype=_DTYPES[content[0]], device="meta")
    if kind == "bytes":
        key, name, shape = content
        return tensors[key].clone().view(_DTYPES[name]).reshape(shape)
    if kind == "dict":
        return {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
    items = [_unpack(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
