"""A trial in flight, kept on disk: written beside and renamed, verified by hash, never unpickled.

    <folder>/000000001234/      one state, by its step
        tensors.safetensors     every tensor
        state.json              everything else, and where each tensor belongs
        manifest.json           SHA-256 of the other two, written last

A state is a tree of dicts, lists, tuples, tensors and plain values. The one before is kept until
the next has been read back and found whole.
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
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_LOG = logging.getLogger("flops_fit")


class DamagedError(Exception):
    """A checkpoint is not what was written."""


@dataclass(frozen=True)
class Keeper:
    """The checkpoints of one trial.

    Attributes:
        folder: Where they lie; nothing else does.
        every_s: Least seconds between two of them.
    """

    folder: Path
    every_s: float

    def exists(self) -> bool:
        """Whether there is something to go on from."""
        return bool(self._steps())

    def save(self, step: int, state: Mapping[str, Any]) -> bool:
        """Keep a state; on a fault the one before stays, a warning is logged, False returned."""
        beside = self.folder / f".{step}.{os.getpid()}.tmp"
        try:
            _write(beside, step, state)
            _read(beside)
            kept = self._replace(beside, step)
        except Exception as error:  # whatever it is, training goes on
            shutil.rmtree(beside, ignore_errors=True)
            _LOG.warning(
                "the trial's state at step %d could not be kept in %s (%s); training goes on",
                step, self.folder, error,
            )  # fmt: skip
            return False
        for other in self.folder.iterdir():  # older ones, and what a kill left half written
            if other != kept:
                shutil.rmtree(other, ignore_errors=True)
        return True

    def _replace(self, beside: Path, step: int) -> Path:
        """Give a state that was written beside its name; an earlier one of its step makes way."""
        kept = self.folder / f"{step:012d}"
        if kept.exists():
            kept.rename(self.folder / f".{step}.{os.getpid()}.old")
        beside.rename(kept)
        sync_folder(self.folder)
        return kept

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """The latest state that is whole, with its step; damaged ones are said and passed over."""
        for kept in reversed(self._steps()):
            try:
                return _read(kept)
            except DamagedError as error:
                _LOG.warning(
                    "checkpoint %s is damaged (%s); going back to the one before it, else the "
                    "trial starts over",
                    kept,
                    error,
                )
        return None

    def clear(self) -> None:
        """Remove them all: the trial is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> list[Path]:
        """What is there, oldest first; half-written ones go by another name."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if path.name.isdigit())


def _write(folder: Path, step: int, state: Mapping[str, Any]) -> None:
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
    """A tree as JSON; tensors go to `tensors`, each by its number."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(value, Mapping):
        return {"dict": [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, tensors) for item in value]}
    raise TypeError(f"a {type(value).__name__} cannot be kept without pickle")


def _unpack(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
    items = [_unpack(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
