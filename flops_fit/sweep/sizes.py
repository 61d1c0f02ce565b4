"""Which sizes can be built, and which come nearest to a wanted number of parameters.

Sizes are whole numbers, found by building on the meta device. A size that the model refuses (a
width that its heads do not divide, say) is passed over and its reason kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from flops_fit.errors import ArgumentError
from flops_fit.records import Size
from flops_fit.sweep.flops import Cost

_FIRST_SEARCH = 512  # the smallest size that a model accepts is looked for up to here
_LARGEST = 1 << 30
_NEIGHBOURS = 64  # refused sizes passed over on each side of a wanted one


@dataclass
class SizeFinder:
    """Parameters by size, each counted once; costs measured only for the sizes that are used.

    Attributes:
        count: From a size to N; raises where the model refuses the size.
        measure: From a size to its `Cost`.
        counts: N of the sizes that were built.
        costs: What was measured.
        refused: Sizes the model refused, with the reason.
    """

    count: Callable[[Size], int]
    measure: Callable[[Size], Cost]
    counts: dict[Size, int] = field(default_factory=dict)
    costs: dict[Size, Cost] = field(default_factory=dict)
    refused: dict[Size, str] = field(default_factory=dict)
    _smallest: int = 0

    def num_params(self, size: Size) -> int | None:
        """N of a size, or None where the model refuses it."""
        if size in self.refused:
            return None
        if size not in self.counts:
            try:
                self.counts[size] = self.count(size)
            except ArgumentError:
                raise
            except Exception as error:
                self.refused[size] = f"{type(error).__name__}: {error}".splitlines()[0]
                return None
        return self.counts[size]

    def cost(self, size: Size) -> Cost:
        """The cost of a size that builds."""
        if size not in self.costs:
            self.costs[size] = self.measure(size)
        return self.costs[size]

    def smallest(self) -> int:
        """The smallest size that builds.

        Raises:
            ArgumentError: If none does.
        """
        if not self._smallest:
            found = next((s for s in range(1, _FIRST_SEARCH + 1) if self.num_params(s)), None)
            if found is None:
                tried = self.refused[_FIRST_SEARCH]
                raise ArgumentError(
                    f"no size from 1 to {_FIRST_SEARCH} builds a model (the last said: {tried}); "
                    "pass sizes=[...]"
                )
            self._smallest = found
        return self._smallest

    def nearest(self, num_params: float) -> int:
        """The size whose parameters come nearest to `num_params` by ratio."""
        low = self.smallest()
        if num_params <= self.counts[low]:
            return low
        low, high = self._bracket(num_params)
        while high - low > 1:
            middle = self._near((low + high) // 2, low, high)
            if middle is None:
                break
            low, high = (middle, high) if self.counts[middle] <= num_params else (low, middle)
        return min(low, high, key=lambda size: _ratio(self.counts[size], num_params))

    def _bracket(self, num_params: float) -> tuple[int, int]:
        low = self.smallest()
        while low < _LARGEST:
            high = self._near(2 * low, low, 4 * low)
            if high is None:
                return low, low
            if self.counts[high] <= self.counts[low]:
                raise ArgumentError(_not_growing(low, high, self.counts))
            if self.counts[high] > num_params:
                return low, high
            low = high
        return low, low

    def _near(self, wanted: int, above: int, below: int) -> int | None:
        """The accepted size nearest to `wanted`, strictly between two others.

        Multiples of the smallest size come first: heads and groups divide them as they divide it.
        """
        step = self.smallest()
        whole = round(wanted / step) * step
        tries = [whole, wanted]
        for k in range(1, _NEIGHBOURS + 1):
            tries += [wanted - k, wanted + k]
        for k in range(1, 5):
            tries += [whole - k * step, whole + k * step]
        return next((s for s in tries if above < s < below and self.num_params(s)), None)


def check_growth(counts: dict[Size, int]) -> None:
    """Raise unless each larger size has more parameters.

    Raises:
        ArgumentError: Naming the first pair that does not grow.
    """
    sizes = sorted(counts, key=float)
    for low, high in itertools.pairwise(sizes):
        if counts[high] <= counts[low]:
            raise ArgumentError(_not_growing(low, high, counts))


def _not_growing(low: Size, high: Size, counts: dict[Size, int]) -> str:
    return (
        f"model_cls: num_params() does not grow with the size parameter: {counts[low]:,} at "
        f"{low!r}, {counts[high]:,} at {high!r}; is this the parameter that sizes the model, and "
        "does num_params() count this instance?"
    )


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)
