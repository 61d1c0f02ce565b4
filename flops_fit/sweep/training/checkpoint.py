"""Checkpoints of a running trial: written beside and renamed, verified by hash, never unpickled.

    <folder>/000000001234/      one checkpoint, named for its step
        tensors.safetensors     the storages of all tensors, as bytes
        state.json              everything else, and the view that each tensor is of its storage
        manifest.json           SHA-256 of the other two, written last

A state is a tree of dicts, lists, tuples, tensors and plain values, packed by `state_tree`. The
previous checkpoint is removed only after the new one has been read back and verified.
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

from safetensors.torch import load, save

from flops_fit.runtime.atomic_write import sync_folder
from flops_fit.sweep.training.state_tree import pack, unpack

SCHEMA = 3
_READABLE = (2, 3)  # schema 2 holds each tensor by itself
_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_MANIFEST = "manifest.json"
_LOG = logging.getLogger("flops_fit")


class DamagedError(Exception):
    """A checkpoint cannot be used: it is incomplete, altered, or of another trial."""


@dataclass(frozen=True)
class Keeper:
    """The checkpoints of one trial.

    Attributes:
        folder: Their folder, which holds nothing else.
        every_s: Least seconds between two of them.
        weights: File for the weights of the model once it is trained; None for none.
    """

    folder: Path
    every_s: float
    weights: Path | None = None

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
    tree, storages = pack(dict(state))
    skeleton = {"schema": SCHEMA, "step": step, "state": tree}
    files = {_TENSORS: save(storages), _STATE: json.dumps(skeleton).encode()}
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
    if skeleton["schema"] not in _READABLE:
        raise DamagedError(f"schema {skeleton['schema']}; this version reads {_READABLE}")
    return skeleton["step"], unpack(skeleton["state"], load(files[_TENSORS]))
