"""`Stages`: which trials a sweep needs next, given what has been trained so far.

A sweep grows while it runs. First comes the pilot, in rounds (`search`). With the laws of rate and
batch that it finds, the trials of the grid are known. When these have ended, rate and batch are
checked at both ends of a row; the laws are fitted again, and trials that turn out to be off are
trained again if they are few. At last sizes are added where a row has its least loss at an edge.
A sweep with a goal begins with a few rows and grows in rounds (`rounds`) before the check.

All of this is a function of the runs in the ledger, so that a sweep that was interrupted, or to
which budgets were added, goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flops_fit.laws.fitting.recipe_surface import fit_recipe
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.laws.pipeline.found_recipe import recipe_cells
from flops_fit.records import RUN_COLUMNS, Run, Trial, to_frame
from flops_fit.sweep.growth.points import begun_trials, chosen_before
from flops_fit.sweep.growth.rounds import Round, Rounds
from flops_fit.sweep.pilot.ends import check_trials, ends
from flops_fit.sweep.pilot.lattice import Lattice
from flops_fit.sweep.pilot.places import LEAST_CELLS, check_budget, earlier_budget, places
from flops_fit.sweep.pilot.recipes import Chosen, choose, trained_before
from flops_fit.sweep.pilot.search import search
from flops_fit.sweep.pilot.words import chosen_in_words, law_in_words
from flops_fit.sweep.plan.extension import extension
from flops_fit.sweep.plan.grid import PilotPlan
from flops_fit.sweep.plan.isoflop_row import IsoflopRows

USUAL_SHARE = 0.3  # of the FLOPs that a sweep with a goal may spend


@dataclass(frozen=True)
class Stage:
    """What a sweep needs at one time.

    Attributes:
        trials: All trials wanted so far.
        grid: Those of the grid; by the first rule while the pilot has not ended.
        law: Rate and batch as the pilot found them; None before, and without a pilot.
        to_come: FLOPs expected beyond `trials`.
        messages: What to tell the user.
        round: Of a sweep with a goal: the round that has been reached.
    """

    trials: tuple[Trial, ...]
    grid: tuple[Trial, ...]
    law: RecipeLaw | None = None
    to_come: float = 0.0
    messages: tuple[str, ...] = ()
    round: Round | None = None


@dataclass(frozen=True)
class Stages:
    """How a sweep grows.

    Attributes:
        rows: Its rows.
        planned: The trials of its grid; by the first rule where rate or batch are to be found.
        pilot: What is trained to find them; None if nothing is.
        extend: Whether sizes are added where the loss is least at an edge of a row.
        size_param: Name of the size parameter.
        rounds: How it grows towards a goal; None if it has none.
    """

    rows: IsoflopRows
    planned: tuple[Trial, ...]
    pilot: PilotPlan | None
    extend: bool
    size_param: str = "size"
    rounds: Rounds | None = None

    @property
    def grows(self) -> bool:
        """Whether more trials may come while those known are trained."""
        return self.pilot is not None or self.rounds is not None

    def next(self, runs: Sequence[Run], settled: Mapping[str, float]) -> Stage:
        """The trials wanted, given what has been trained.

        Args:
            runs: One run for each trial of the sweep's setting.
            settled: Held-out loss of the trials that have ended, by id; NaN of those without one.
        """
        if self.pilot is None:
            return self._sweep(self.rows, Stage((), ()), runs, settled)
        lattice = self._lattice(runs)
        # A pilot of an earlier plan may have had a larger budget, and so dearer cells.
        most_flops = max(self.pilot.most_flops, LEAST_CELLS * lattice.places[0].budget)
        cells = search(lattice, settled, most_flops)
        if not cells.finished:
            left = max(0.0, most_flops - _flops(cells.trials))
            to_come = left + self.pilot.check_flops + _flops(self.planned) + self._by_rounds
            return Stage(cells.trials, self.planned, to_come=to_come)
        rows = replace(self.rows, law=self._law(runs))
        num_checks = sum(run.role == "check" for run in runs)
        stage = Stage(cells.trials, (), rows.law, messages=(law_in_words(rows, cells, num_checks),))
        return self._sweep(rows, stage, runs, settled)

    def _sweep(
        self, rows: IsoflopRows, stage: Stage, runs: Sequence[Run], settled: Mapping[str, float]
    ) -> Stage:
        """The stage with the trials of the grid, and what follows once they have ended."""
        chosen = _chosen(rows, self.planned, runs)
        grid = tuple(chosen.trials)
        if self.rounds is not None:
            grid = _with_begun(rows, grid, runs, self.rounds)
        stage = replace(
            stage,
            trials=(*stage.trials, *grid),
            grid=grid,
            to_come=self._check_flops + self._by_rounds,
            messages=(*stage.messages, *chosen_in_words(chosen, self.size_param)),
        )
        if not _all_settled(grid, settled):
            return stage
        if self.rounds is not None:
            stage = _with_round(rows, stage, self.rounds.next(rows, grid, runs))
            if not _all_settled(stage.trials, settled):
                return replace(stage, to_come=stage.to_come + self._check_flops)
        stage = replace(stage, to_come=0.0)
        if self.pilot is not None:
            checks = self._checks(rows, grid, runs)
            stage = replace(stage, trials=(*stage.trials, *checks))
            if not _all_settled(checks, settled):
                return stage
        return stage if self.rounds else self._extended(rows, stage, runs, settled)

    @property
    def _check_flops(self) -> float:
        return 0.0 if self.pilot is None else self.pilot.check_flops

    @property
    def _by_rounds(self) -> float:
        """FLOPs expected of rounds before the first: what may be spent is rarely needed."""
        if self.rounds is None:
            return 0.0
        return max(0.0, USUAL_SHARE * self.rounds.max_flops - _flops(self.planned))

    def _lattice(self, runs: Sequence[Run]) -> Lattice:
        budgets = _budgets(self.planned)
        earlier = earlier_budget(runs, budgets[0])
        return Lattice.of(self.rows, places(self.rows, budgets, earlier))

    def _law(self, runs: Sequence[Run]) -> RecipeLaw | None:
        """Rate and batch by all cells trained so far, of pilots and of checks."""
        cells = recipe_cells(to_frame(runs, RUN_COLUMNS))
        per_example = self.rows.source.tokens_per_example
        return fit_recipe(cells, tuned=self.rows.tuned, tokens_per_example=per_example)

    def _checks(
        self, rows: IsoflopRows, sweep: Sequence[Trial], runs: Sequence[Run]
    ) -> list[Trial]:
        """The trials that check the recipe at both ends of a row.

        If the ends were checked before, with another recipe than they have now, those checks are
        gone on with.
        """
        total = _flops(self.planned if self.rounds is None else sweep)
        budget = check_budget(_budgets(sweep), total)
        row = [t for t in sweep if t.compute_budget == budget and t.lr_multiplier == 1]
        known = {run.trial_id for run in runs}
        trials = []
        for end in ends(row):
            centres = [end, *trained_before(rows, end, runs)]
            sets = [check_trials(rows, centre) for centre in centres]
            trials += max(sets, key=lambda checks: sum(one.trial_id in known for one in checks))
        return trials

    def _extended(
        self,
        rows: IsoflopRows,
        stage: Stage,
        runs: Sequence[Run],
        settled: Mapping[str, float],
    ) -> Stage:
        """The stage, with sizes added where the loss of a row is least at its edge."""
        if not (self.extend and _all_settled(stage.grid, settled)):
            return stage
        losses = {trial_id: loss for trial_id, loss in settled.items() if math.isfinite(loss)}
        added, messages = extension(rows, stage.grid, losses)
        return replace(
            stage,
            trials=(*stage.trials, *_chosen(rows, added, runs).trials),
            messages=(*stage.messages, *messages),
        )


def _chosen(rows: IsoflopRows, planned: Sequence[Trial], runs: Sequence[Run]) -> Chosen:
    """The trials of these points by the law; as they are planned where there is none."""
    if rows.law is None:
        return Chosen(list(planned), [], again=False, flops=0.0)
    own = [trial for trial in planned if trial.lr_multiplier == 1]
    chosen = choose(rows, rows.law, own, runs)
    rates = rows.recipe.lr_multipliers
    return replace(chosen, trials=[v for t in chosen.trials for v in rows.at_rates(t, rates)])


def _with_begun(
    rows: IsoflopRows, grid: Sequence[Trial], runs: Sequence[Run], rounds: Rounds
) -> tuple[Trial, ...]:
    """The trials of a grid, and those begun, or chosen before an interruption, at other places."""
    places = {(trial.compute_budget, trial.size) for trial in grid}
    added = []
    for trial in (
        *begun_trials(rows, runs, rounds.goal.budgets),
        *chosen_before(rows, rounds.chosen),
    ):
        if (trial.compute_budget, trial.size) not in places:
            places.add((trial.compute_budget, trial.size))
            added.append(trial)
    rates = rows.recipe.lr_multipliers
    return (*grid, *(variant for trial in added for variant in rows.at_rates(trial, rates)))


def _with_round(rows: IsoflopRows, stage: Stage, found: Round) -> Stage:
    """The stage with the trials of a round."""
    rates = rows.recipe.lr_multipliers
    trials = tuple(v for trial in found.trials for v in rows.at_rates(trial, rates))
    return replace(
        stage,
        trials=(*stage.trials, *trials),
        grid=(*stage.grid, *trials),
        to_come=found.to_come,
        messages=(*stage.messages, found.message),
        round=found,
    )


def _all_settled(trials: Iterable[Trial], settled: Mapping[str, float]) -> bool:
    return all(trial.trial_id in settled for trial in trials)


def _flops(trials: Iterable[Trial]) -> float:
    return sum(trial.flops for trial in trials)


def _budgets(trials: Iterable[Trial]) -> list[float]:
    return sorted({trial.compute_budget for trial in trials})
