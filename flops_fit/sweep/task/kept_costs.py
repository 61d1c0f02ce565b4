"""What the sizes of a model cost, kept in a file, so that FLOPs are counted once.

The name of the file is a hash of all that a count depends on: source and arguments of model and
loss, what a batch looks like, and the versions of torch and of flops-fit. What that cannot show (a
setting read while the model is built or runs, another version of a library) shows in the models:
the smallest and the largest are built again and compared, and FLOPs of the smallest are counted
again. A file that is not as it was written is left alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._pytree import tree_map

from flops_fit.records import Size
from flops_fit.runtime.atomic_write import atomic_write
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.task.hashing import digest
from flops_fit.sweep.task.model_cost import ModelCost, build_empty, count_params, shapes_of
from flops_fit.sweep.task.size_finder import SizeFinder
from flops_fit.sweep.task.source_code import code_of
from flops_fit.sweep.task.task import Task, task_identity
from flops_fit.validate import is_count, is_positive
from flops_fit.version import source_digest

FOLDER = "costs"  # beside the store
_COUNTED = "measured"  # counts of other kinds come with a warning, or take no time
_V = TypeVar("_V")


@dataclass
class KeptCosts:
    """The costs of one model, and their file.

    Attributes:
        path: The file.
        task: The model.
        written: How many sizes the file holds, with and without a count of FLOPs.
    """

    path: Path
    task: Task
    written: tuple[int, int] = field(default=(0, 0))

    @classmethod
    def of(cls, folder: Path, task: Task, source: Source) -> KeptCosts:
        """The costs of a task's model on batches of this data, in a folder."""
        shapes = [(_shapes(batch), tokens) for batch, tokens in source.costed]
        versions = [torch.__version__, source_digest()]
        key = digest([task_identity(task, source), code_of(task), shapes, versions])
        return cls(folder / f"{key}.json", task)

    def recall(self, finder: SizeFinder) -> None:
        """Give a finder that has counted nothing yet the costs in the file."""
        try:
            costs, counts = self._read()
            asked = _asked(costs, finder)
            if asked and not _still_costs(min(asked.values(), key=_num_params), finder):
                return
        except Exception:  # whatever is in the file, or became of the model: it is counted again
            return
        finder.costs.update(asked)
        finder.counts.update(_asked(counts, finder))
        self.written = len(costs), len(counts)

    def keep(self, finder: SizeFinder) -> None:
        """Write what a finder has counted, if that is more than the file holds."""
        costs = [cost for cost in finder.costs.values() if cost.convention == _COUNTED]
        size_of_file = len(costs), len(finder.counts)
        if not costs or size_of_file <= self.written:
            return
        content = {
            "costs": [
                [cost.size, cost.num_params, cost.flops_per_token, cost.shapes, list(cost.notes)]
                for cost in costs
            ],
            "num_params": [[size, count] for size, count in finder.counts.items()],
            "packages": _packages(build_empty(self.task, costs[0].size)),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"digest": self._digest(content), **content})
            atomic_write(self.path, text + "\n")
        except OSError:  # a store that can only be read
            return
        self.written = size_of_file

    def _read(self) -> tuple[dict[Size, ModelCost], dict[Size, int]]:
        """Costs and numbers of parameters by size.

        Raises:
            Exception: There is no such file, it is not as it was written, or of another model.
        """
        stored = json.loads(self.path.read_text(encoding="utf-8"))
        written = stored.pop("digest")
        if written != self._digest(stored):
            raise ValueError("the file was changed")
        costs = {row[0]: _cost(*row) for row in stored["costs"]}
        counts: dict[Size, int] = dict(stored["num_params"])
        if not all(map(is_count, counts.values())):
            raise ValueError("a number of parameters is none")
        by_params = sorted(costs.values(), key=lambda cost: cost.num_params)
        for cost in (by_params[0], by_params[-1]):
            model = build_empty(self.task, cost.size)
            now = count_params(model, cost.size), shapes_of(model), _packages(model)
            if now != (cost.num_params, cost.shapes, stored["packages"]):
                raise ValueError("the model is another one")
        return costs, counts

    def _digest(self, content: Mapping[str, Any]) -> str:
        return digest([self.path.stem, content])


def _cost(
    size: Any, num_params: Any, flops_per_token: Any, shapes: Any, notes: list[Any]
) -> ModelCost:
    sound = is_count(num_params) and is_positive(flops_per_token) and isinstance(shapes, str)
    if not sound:
        raise ValueError(f"no cost: {num_params!r}, {flops_per_token!r}, {shapes!r}")
    return ModelCost(size, num_params, flops_per_token, shapes, _COUNTED, tuple(map(str, notes)))


def _num_params(cost: ModelCost) -> int:
    return cost.num_params


def _still_costs(cost: ModelCost, finder: SizeFinder) -> bool:
    """Whether a count of FLOPs comes out as it did before."""
    return finder.measure(cost.size).flops_per_token == cost.flops_per_token


def _asked(by_size: Mapping[Size, _V], finder: SizeFinder) -> dict[Size, _V]:
    """The entries of sizes that the finder may use: 8 is not 8.0, which has other trial ids."""
    if finder.given is None:
        return {size: value for size, value in by_size.items() if type(size) is int}
    known = {repr(size): value for size, value in by_size.items()}
    return {size: known[repr(size)] for size in finder.given if repr(size) in known}


def _packages(model: nn.Module) -> dict[str, str]:
    """The versions of the packages that a model's modules are defined in."""
    names = {type(module).__module__.partition(".")[0] for module in model.modules()}
    versions = {name: getattr(sys.modules.get(name), "__version__", "") for name in names}
    return {name: str(version) for name, version in sorted(versions.items())}


def _shapes(batch: Any) -> Any:
    """A batch, with shape and type in place of each tensor."""
    plain = dict(batch) if isinstance(batch, Mapping) else batch
    return tree_map(
        lambda leaf: f"{tuple(leaf.shape)} {leaf.dtype}" if isinstance(leaf, torch.Tensor) else "",
        plain,
    )
