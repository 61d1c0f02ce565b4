"""A tree of tensors and plain values as JSON and flat storages, without pickle.

Tensors are saved by storage, as bytes, with the view that each one takes of it. So tensors that
share memory, expanded and overlapping ones, and those of any dtype or memory layout come back as
they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_ALIGNMENT = 64  # bytes; part of a storage is saved from a multiple of this

_COMPRESSED = {  # layouts of sparse matrices, and the methods that return their indices
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}


def pack(value: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """A tree as JSON, and the storages that it refers to by key.

    Raises:
        TypeError: The tree holds a value that is no number, text, tensor, list, tuple or mapping.
    """
    packer = _Packer()
    tree = packer.pack(value)
    return tree, packer.storages()


def unpack(value: Any, storages: Mapping[str, torch.Tensor]) -> Any:
    """The tree that `pack` was given; tensors that shared memory share it again."""
    # A copy is aligned as torch aligns its own memory, which vectorised kernels may depend on.
    return _unpack(value, {key: storage.clone() for key, storage in storages.items()})


def flat_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The whole storage behind a tensor, as bytes that share its memory."""
    empty = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    return empty.set_(tensor.untyped_storage())


def view_of(storage: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The view of a storage (as flat bytes) that `like` takes of its own."""
    return _view(storage, like.dtype, int(like.storage_offset()), like.shape, like.stride())


def _view(storage: torch.Tensor, dtype: torch.dtype, offset: int, size: Any, stride: Any) -> Any:
    empty = torch.empty(0, dtype=dtype, device=storage.device)
    return empty.set_(storage.untyped_storage(), offset, tuple(size), tuple(stride))


class _Packer:
    """One tree being packed: `pack` collects its tensors, `storages` then fills in their views."""

    def __init__(self) -> None:
        self._found: list[tuple[torch.Tensor, list[Any]]] = []  # tensors, and entries to fill in

    def pack(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, torch.Tensor):
            return self._tensor(value.detach())
        if isinstance(value, Mapping):
            return {"dict": [[self.pack(k), self.pack(v)] for k, v in value.items()]}
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [self.pack(item) for item in value]}
        raise TypeError(f"a {type(value).__name__} cannot be saved without pickle")

    def _tensor(self, tensor: torch.Tensor) -> dict[str, Any]:
        if tensor.is_quantized or tensor.is_nested:
            raise TypeError("a quantized or nested tensor cannot be saved")
        if tensor.layout is torch.sparse_coo:
            parts = [tensor._indices(), tensor._values()]
            return self._sparse(tensor, parts, coalesced=tensor.is_coalesced())
        if tensor.layout in _COMPRESSED:
            parts = [getattr(tensor, name)() for name in _COMPRESSED[tensor.layout]]
            return self._sparse(tensor, [*parts, tensor.values()], coalesced=True)
        if tensor.layout is not torch.strided:
            raise TypeError(f"a tensor of layout {tensor.layout} cannot be saved")
        if tensor.is_meta:
            return {"meta": [_name(tensor.dtype), list(tensor.shape), list(tensor.stride())]}
        entry: list[Any] = []
        self._found.append((tensor.resolve_conj().resolve_neg(), entry))
        return {"view": entry}

    def _sparse(self, tensor: torch.Tensor, parts: Any, *, coalesced: bool) -> dict[str, Any]:
        packed = [self._tensor(part) for part in parts]
        return {"sparse": [_name(tensor.layout), list(tensor.shape), coalesced, packed]}

    def storages(self) -> dict[str, torch.Tensor]:
        """The storages by key, in host memory; of each, the part that the tree's tensors span."""
        groups: dict[int, list[tuple[torch.Tensor, list[Any]]]] = {}
        for tensor, entry in self._found:
            groups.setdefault(tensor.untyped_storage().data_ptr(), []).append((tensor, entry))
        parts = {}
        for number, group in enumerate(groups.values()):
            spans = [_span(tensor) for tensor, _ in group]
            first = min(start for start, _ in spans) // _ALIGNMENT * _ALIGNMENT
            parts[str(number)] = flat_bytes(group[0][0])[first : max(end for _, end in spans)].cpu()
            for tensor, entry in group:
                offset = tensor.storage_offset() - first // tensor.element_size()
                layout = [offset, list(tensor.shape), list(tensor.stride())]
                entry += [str(number), _name(tensor.dtype), *layout]
        return parts


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """The bytes of its storage between the first and the last element of a tensor."""
    start, size = int(tensor.storage_offset()), tensor.element_size()
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    end = start + reach if tensor.numel() else start
    return start * size, int(end) * size


def _unpack(value: Any, storages: Mapping[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":  # checkpoints of schema 2
        return storages[content]
    if kind == "view":
        key, dtype, offset, size, stride = content
        return _view(storages[key], getattr(torch, dtype), offset, size, stride)
    if kind == "meta":
        dtype, size, stride = content
        return torch.empty_strided(size, stride, dtype=getattr(torch, dtype), device="meta")
    if kind == "sparse":
        return _unpack_sparse(storages, *content)
    if kind == "dict":
        return {_unpack(k, storages): _unpack(v, storages) for k, v in content}
    items = [_unpack(item, storages) for item in content]
    return items if kind == "list" else tuple(items)


def _unpack_sparse(
    storages: Mapping[str, torch.Tensor], name: str, size: list[int], coalesced: bool, packed: Any
) -> torch.Tensor:
    layout = getattr(torch, name)
    *indices, values = (_unpack(part, storages) for part in packed)
    if layout is torch.sparse_coo:
        return torch.sparse_coo_tensor(indices[0], values, tuple(size), is_coalesced=coalesced)
    return torch.sparse_compressed_tensor(
        indices[0], indices[1], values, tuple(size), layout=layout
    )


def _name(of_torch: object) -> str:
    return str(of_torch).removeprefix("torch.")
