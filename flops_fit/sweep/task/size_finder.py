"""Which sizes can be built, and which come nearest to a wanted number of parameters.

Sizes are whole numbers, found by building on the meta device. A size that the model refuses (a
width that its heads do not divide, say), when it is built or when it first runs, is passed over and
its reason kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flops_fit.errors import ArgumentError, in_short
from flops_fit.records import Size
from flops_fit.sweep.task.model_cost import ModelCost

_FIRST_SEARCH = 512  # the smallest size that a model accepts is looked for up to here
_LEVEL = 512  # a count may stay level while the size grows by this factor
_LARGEST = 1 << 30
_NEIGHBOURS = 64  # refused sizes passed over on each side of a wanted one


@dataclass
class SizeFinder:
    """Parameters by size, each counted once; costs measured only for the sizes that are used.

    Attributes:
        count: From a size to N; raises where the model refuses the size.
        measure: From a size to its `Cost`; raises where the model does not run at it.
        given: The only sizes to use; None to search the whole numbers.
        counts: N of the sizes that were built.
        costs: What was measured.
        refused: Sizes the model refused, with the reason.
    """

    count: Callable[[Size], int]
    measure: Callable[[Size], ModelCost]
    given: Sequence[Size] | None = None
    counts: dict[Size, int] = field(default_factory=dict)
    costs: dict[Size, ModelCost] = field(default_factory=dict)
    refused: dict[Size, str] = field(default_factory=dict)

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
                self.refuse(size, error)
                return None
        return self.counts[size]

    def cost(self, size: Size) -> ModelCost | None:
        """What a size costs, or None where the model refuses it or does not run at it."""
        if self.num_params(size) is None:
            return None
        if size not in self.costs:
            try:
                self.costs[size] = self.measure(size)
            except ArgumentError:
                raise
            except Exception as error:
                self.refuse(size, error)
                return None
        return self.costs[size]

    def refuse(self, size: Size, error: Exception) -> None:
        """Pass a size over from now on."""
        self.refused[size] = in_short(error)
        self.counts.pop(size, None)

    def smallest(self) -> Size:
        """The size with fewest parameters: of those given, else the first whole number that builds.

        Raises:
            ArgumentError: If none builds.
        """
        return self._first() if self.given is None else self.ascending()[0]

    def ascending(self) -> list[Size]:
        """The given sizes that build, by their parameters.

        Raises:
            ArgumentError: If none does.
        """
        counts = {size: n for size in self.given or () if (n := self.num_params(size))}
        if not counts:
            reasons = "; ".join(f"{size!r}: {why}" for size, why in self.refused.items())
            raise ArgumentError(f"model_cls: it refused every one of the sizes ({reasons})")
        return sorted(counts, key=counts.__getitem__)

    def check_growth(self) -> None:
        """Raise unless larger sizes have more parameters.

        Raises:
            ArgumentError: Naming two sizes that do not grow, or saying that none builds.
        """
        if self.given is None:
            self._bracket(self.counts[self._first()])
            return
        numbers = sorted(size for size in self.ascending() if isinstance(size, int | float))
        for low, high in itertools.pairwise(numbers):
            if self.counts[high] <= self.counts[low]:
                raise ArgumentError(_not_growing(low, high, self.counts))

    def nearest_cost(self, num_params: float) -> ModelCost:
        """The cost of the size nearest to `num_params` at which the model runs."""
        while (cost := self.cost(self.nearest(num_params))) is None:
            pass
        return cost

    def nearest(self, num_params: float) -> int:
        """The size whose parameters come nearest to `num_params` by ratio."""
        low = self._first()
        if num_params <= self.counts[low]:
            return low
        low, high = self._bracket(num_params)
        while high - low > 1:
            middle = self._near((low + high) // 2, low, high)
            if middle is None:
                break
            low, high = (middle, high) if self.counts[middle] <= num_params else (low, middle)
        return min(low, high, key=lambda size: _ratio(self.counts[size], num_params))

    def _first(self) -> int:
        found = next((s for s in range(1, _FIRST_SEARCH + 1) if self.num_params(s)), None)
        if found is None:
            tried = self.refused[_FIRST_SEARCH]
            raise ArgumentError(
                f"model_cls: no size from 1 to {_FIRST_SEARCH} builds a model (the last said: "
                f"{tried}); pass sizes=[...]"
            )
        return found

    def _bracket(self, num_params: float) -> tuple[int, int]:
        """Two sizes with `num_params` between them, by doubling; at the end, the largest twice."""
        low = high = grown = self._first()
        while self.counts[high] <= num_params and high < _LARGEST:
            wider = self._near(2 * high, high, 4 * high)
            if wider is None:
                return high, high
            # A width that is rounded to a multiple stays level for a while; then it must grow.
            level = self.counts[wider] == self.counts[high] and wider <= _LEVEL * grown
            if self.counts[wider] <= self.counts[high] and not level:
                raise ArgumentError(_not_growing(grown, wider, self.counts))
            low, high, grown = high, wider, grown if level else wider
        return low, high

    def _near(self, wanted: int, above: int, below: int) -> int | None:
        """The accepted size nearest to `wanted`, strictly between two others.

        Multiples of the smallest size come first: heads and groups divide them as they divide it.
        """
        step = self._first()
        whole = round(wanted / step) * step
        tries = [whole, wanted]
        for k in range(1, _NEIGHBOURS + 1):
            tries += [wanted - k, wanted + k]
        for k in range(1, 5):
            tries += [whole - k * step, whole + k * step]
        return next((s for s in tries if above < s < below and self.num_params(s)), None)


def _not_growing(low: Size, high: Size, counts: dict[Size, int]) -> str:
    return (
        f"model_cls: num_params() does not grow with the size parameter: {counts[low]:,} at "
        f"{low!r}, {counts[high]:,} at {high!r}; is this the parameter that sizes the model, and "
        "does num_params() count this instance?"
    )


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)
