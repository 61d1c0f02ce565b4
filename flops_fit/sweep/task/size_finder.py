"""Which sizes can be built, and which one comes nearest to a number of parameters.

Sizes are whole numbers, found by building models on the meta device. A size at which the model
raises (say, a width not divisible by its heads), when built or when first run, is skipped, and the
reason is recorded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flops_fit.errors import ArgumentError, in_short
from flops_fit.records import Size
from flops_fit.sweep.task.model_cost import ModelCost

_FIRST_SEARCH = 512  # the smallest size that builds is searched for up to here
_MAX_LEVEL = 512  # N may stay level while the size grows by this factor
_LARGEST = 1 << 30  # largest size tried
_NEIGHBOURS = 64  # sizes tried on each side of one that is refused


@dataclass
class SizeFinder:
    """Parameters by size, each counted once; costs measured only for the sizes that are used.

    Attributes:
        count: From a size to N; raises if the model cannot be built at it.
        measure: From a size to its `ModelCost`; raises if the model does not run at it.
        given: The only sizes to use; None to search the whole numbers.
        counts: N of the sizes that were built.
        costs: Costs of the sizes that were measured.
        refused: Sizes at which the model raised, with the reason.
    """

    count: Callable[[Size], int]
    measure: Callable[[Size], ModelCost]
    given: Sequence[Size] | None = None
    counts: dict[Size, int] = field(default_factory=dict)
    costs: dict[Size, ModelCost] = field(default_factory=dict)
    refused: dict[Size, str] = field(default_factory=dict)

    def num_params(self, size: Size) -> int | None:
        """N of a size, or None if the model cannot be built at it."""
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
        """The cost of a size, or None if the model cannot be built or does not run at it."""
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
        """Skip a size from now on, because of an error."""
        self.refused[size] = in_short(error)
        self.counts.pop(size, None)

    def smallest(self) -> Size:
        """The given size with the fewest parameters, or the first whole number that builds.

        Raises:
            ArgumentError: No size builds.
        """
        return self._first() if self.given is None else self.ascending()[0]

    def ascending(self) -> list[Size]:
        """The given sizes that build, ascending in parameters.

        Raises:
            ArgumentError: No size builds.
        """
        counts = {size: n for size in self.given or () if (n := self.num_params(size))}
        if not counts:
            reasons = "; ".join(f"{size!r}: {reason}" for size, reason in self.refused.items())
            raise ArgumentError(f"model_cls: it raised at all of the sizes ({reasons})")
        return sorted(counts, key=counts.__getitem__)

    def check_growth(self) -> None:
        """Check that larger sizes have more parameters.

        Raises:
            ArgumentError: They do not (names two such sizes), or no size builds.
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
        # Each failure refuses a size, so the next search finds another.
        while (cost := self.cost(self.nearest(num_params))) is None:
            pass
        return cost

    def nearest(self, num_params: float) -> int:
        """The size whose N is nearest to `num_params` by ratio: doubling, then bisection."""
        low = self._first()
        if num_params <= self.counts[low]:
            return low
        low, high = self._bracket(num_params)
        # Bisection, which ends early if no size in between builds.
        while high - low > 1:
            middle = self._near((low + high) // 2, low, high)
            if middle is None:
                break
            low, high = (middle, high) if self.counts[middle] <= num_params else (low, middle)
        return min(low, high, key=lambda size: _ratio(self.counts[size], num_params))

    def _first(self) -> int:
        """The smallest whole number at which the model can be built."""
        found = next((s for s in range(1, _FIRST_SEARCH + 1) if self.num_params(s)), None)
        if found is None:
            last_error = self.refused[_FIRST_SEARCH]
            raise ArgumentError(
                f"model_cls: no size from 1 to {_FIRST_SEARCH} builds a model (the last error: "
                f"{last_error}); pass sizes=[...]"
            )
        return found

    def _bracket(self, num_params: float) -> tuple[int, int]:
        """Two sizes with `num_params` between them; beyond the largest size, that size twice."""
        low = high = grown = self._first()
        while self.counts[high] <= num_params and high < _LARGEST:
            wider = self._near(2 * high, high, 4 * high)
            if wider is None:
                return high, high
            # A model may round its width to a multiple: N then stays level before it grows.
            level = self.counts[wider] == self.counts[high] and wider <= _MAX_LEVEL * grown
            if self.counts[wider] <= self.counts[high] and not level:
                raise ArgumentError(_not_growing(grown, wider, self.counts))
            low, high, grown = high, wider, grown if level else wider
        return low, high

    def _near(self, wanted: int, above: int, below: int) -> int | None:
        """A size near `wanted` that builds, strictly between two others; None if there is none.

        Multiples of the smallest size come first: where heads or groups divide the smallest size,
        they divide its multiples too.
        """
        step = self._first()
        multiple = round(wanted / step) * step
        candidates = [multiple, wanted]
        for k in range(1, _NEIGHBOURS + 1):
            candidates += [wanted - k, wanted + k]
        for k in range(1, 5):
            candidates += [multiple - k * step, multiple + k * step]
        return next((s for s in candidates if above < s < below and self.num_params(s)), None)


def _not_growing(low: Size, high: Size, counts: dict[Size, int]) -> str:
    return (
        f"model_cls: num_params() does not grow with the size parameter: {counts[low]:,} at "
        f"{low!r}, {counts[high]:,} at {high!r}; is this the parameter that sizes the model, and "
        "does num_params() count this instance?"
    )


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)
