"""`Twins`: the trials of another sweep, whose randomness those of this one share.

Two trials of one budget and one place in its row then start from the same generator state and draw
the data in the same order. What remains between their losses is what differs between the sweeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flops_fit.display.number_text import flops
from flops_fit.records import Run, Size


@dataclass(frozen=True)
class Twins:
    """The finished trials of another sweep.

    Attributes:
        name: Of the other sweep.
        setting: Hash of what its trials share.
        data_fingerprint: Hash of its data.
        held_out: How its held-out data were chosen.
        size_param: Name of its size parameter.
        rows: For each budget, as text, the sizes ascending in N, with the ids of their trials.
    """

    name: str
    setting: str
    data_fingerprint: str
    held_out: str
    size_param: str
    rows: Mapping[str, Mapping[Size, str]]

    @classmethod
    def of(cls, name: str, meta: Mapping[str, str], runs: Iterable[Run]) -> Twins:
        """The trials of a sweep proper that have finished.

        Args:
            name: Of the sweep.
            meta: What it wrote about itself.
            runs: Its runs.
        """
        rows: dict[str, dict[Size, str]] = {}
        finished = [run for run in runs if run.state == "complete" and run.role == "sweep"]
        for run in sorted(finished, key=lambda run: (run.compute_budget, run.num_params)):
            if run.size is not None and run.lr_multiplier == 1:
                rows.setdefault(_key(run.compute_budget), {})[run.size] = run.trial_id
        return cls(
            name,
            meta.get("setting", ""),
            meta.get("data_fingerprint", ""),
            meta.get("held_out", ""),
            meta.get("size_param", ""),
            rows,
        )

    @property
    def budgets(self) -> list[float]:
        """Its budgets in FLOPs, ascending."""
        return sorted(map(float, self.rows))

    def sizes(self, budget: float, size_param: str) -> list[Size]:
        """The sizes at a budget, if the size parameter of this name counts the same; else none."""
        return list(self.rows.get(_key(budget), {})) if size_param == self.size_param else []

    def twin(self, budget: float, size: Size, index: int, size_param: str) -> str:
        """The id of the trial at the same place; empty if there is none.

        Args:
            budget: In FLOPs.
            size: Value of the size parameter.
            index: Of the size in its row, which is the place where sizes are named otherwise.
            size_param: Name of the size parameter.
        """
        row = self.rows.get(_key(budget), {})
        if size_param == self.size_param:
            return row.get(size, "")
        ids = list(row.values())
        return ids[index] if index < len(ids) else ""

    def faults(self, budgets: Iterable[float], data_fingerprint: str | None) -> list[str]:
        """Why a sweep of these budgets on these data cannot be paired with it.

        Args:
            budgets: In FLOPs.
            data_fingerprint: Hash of the data; None if they could not be opened.
        """
        found = []
        if not self.rows:
            return [f"paired_with: no trial of {self.name!r} has finished"]
        missing = [budget for budget in budgets if _key(budget) not in self.rows]
        if missing:
            found.append(
                f"paired_with: {self.name!r} has no finished trials at "
                f"{', '.join(map(flops, missing))} FLOPs; its budgets are "
                f"{', '.join(map(flops, self.budgets))}"
            )
        if data_fingerprint not in (None, self.data_fingerprint):
            found.append(
                f"paired_with: {self.name!r} was trained on other data, or with other held-out "
                "data; pass the same dataset and eval_dataset"
            )
        return found


def _key(budget: float) -> str:
    return repr(float(f"{budget:.6g}"))
