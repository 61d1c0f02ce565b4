"""The training loop of one trial: steps, micro-batches, checkpoints, running out of memory.

In a data-parallel launch every rank runs this loop in step with the others. Before anything that
could leave them apart (a weight update, a checkpoint, a stop, an error) they agree on it with one
small all-reduce on the host, `_agree`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from accelerate.utils.memory import clear_device_cache

from flops_fit.errors import LostRankError, RankError
from flops_fit.records import Trial
from flops_fit.runtime import distributed
from flops_fit.runtime.rng import rng_state, set_rng_state, start_from
from flops_fit.runtime.signals import StopRequest
from flops_fit.sweep.data.batch_order import parts_of, trial_seed
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.checkpoint import DamagedError, Keeper
from flops_fit.sweep.training.curve import Point, Report, diverged
from flops_fit.sweep.training.optimizer import multiplier
from flops_fit.sweep.training.prepared_model import PreparedModel, out_of_memory
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.sweep.training.weighed_step import Counted, divide_by_weight, weighed_backward

_LOG = logging.getLogger("flops_fit")


class TrainingLoop:
    """One trial in training: build it, `begin()`, then `run()`.

    Attributes:
        prepared: Model and optimiser.
        step: Optimiser steps done.
        seconds: Time spent on them, over all attempts, without the held-out evaluation.
        micro_batch: Most examples of one forward pass; halved when memory runs out.
        updating: Whether the optimiser is changing the parameters. After an error in the middle of
            an update the step cannot be tried again.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        task: Task,
        source: Source,
        trial: Trial,
        recipe: Recipe,
        keeper: Keeper | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.task = task
        self.source = source
        self.trial = trial
        self.recipe = recipe
        self.keeper = keeper
        self.stop = StopRequest() if stop is None else stop
        self.prepared = PreparedModel(accelerator, task, trial, recipe)
        self.step = 0
        self.seconds = 0.0
        self.micro_batch = -(-trial.batch_size // (distributed.count() * recipe.accumulate))
        self.updating = False
        self.counted = Counted()
        # The training curve: sum and mean of the losses since the last point.
        self._log_every = max(1, trial.steps // recipe.log_points)
        self._logged_step = 0
        self._loss_sum = torch.zeros((), device=accelerator.device)
        self._mean_loss = math.nan
        self._last_point: Point | None = None
        # First step without a finite loss, 0 for none; on the device, read with each point.
        self._bad_step = torch.zeros((), device=accelerator.device)
        # What the ranks agreed on: a signal to stop (0 for none), a checkpoint, a common error.
        self._one_rank = distributed.count() == 1
        self._stop_signal = 0
        self._checkpoint_due = False
        self._joint_error: Exception | None = None
        self._saved_at = time.monotonic()

    def begin(self) -> None:
        """Restore the last checkpoint, or start from rank 0's initial weights.

        Raises:
            DamagedError: The checkpoint does not fit the trial.
            LostRankError: A rank is gone, or silent beyond the timeout.
        """
        rank = distributed.rank()
        if rank:  # each rank draws its own dropout masks
            start_from((trial_seed(self.trial) + rank) % 2**63)
        checkpoint = distributed.from_main(lambda: self.keeper.load() if self.keeper else None)
        with distributed.together():
            if checkpoint:
                try:
                    self._restore(*checkpoint)
                except Exception as error:
                    raise DamagedError(f"the checkpoint does not fit the trial: {error}") from error
        if not checkpoint:
            model = self.prepared.model
            distributed.copy_from_main([*model.parameters(), *model.buffers()])

    def run(self, report: Report) -> Point:
        """Train the remaining steps.

        Args:
            report: Called with each new point of the training curve.

        Returns:
            The last point.
        """
        self.prepared.model.train()
        self._saved_at = time.monotonic()
        while (error := self._train(report)) is not None:
            if self.updating or self.micro_batch == 1 or not out_of_memory(error):
                raise error
            self._joint_error = None
            del error  # its traceback holds the tensors that the step had allocated
            self._halve_micro_batch()
        return self._last_point or self._point()

    def _train(self, report: Report) -> Exception | None:
        """Train until the last step or an error; returns the error of this rank, or of any other.

        Raises:
            LostRankError: A rank is gone, or silent beyond the timeout.
        """
        started = time.perf_counter() - self.seconds
        try:
            for batches in self._batches() if self.step < self.trial.steps else ():
                self._train_step(batches)
                self.seconds = time.perf_counter() - started
                if self.step % self._log_every == 0 or self.step == self.trial.steps:
                    self._last_point = self._point()
                    report(self._last_point)
                self.between_steps()
        except LostRankError:
            raise
        except Exception as error:
            # The joint error was agreed on already: the others raise it too.
            return error if error is self._joint_error else self._agree(error)
        return self._agree()  # another rank may have failed in its last update

    def _agree(self, error: Exception | None = None) -> Exception | None:
        """Tell the other ranks whether this one failed, and agree on what follows this step.

        Returns:
            None if no rank failed; else the error that every rank raises.
        """
        failed, self._stop_signal, due, last_step, minus_first_step = distributed.most(
            error is not None, self.stop.signal, self._is_due(), self.step, -self.step
        )
        self._checkpoint_due = bool(due)
        if not failed:
            return None
        retry = error is not None and not self.updating and out_of_memory(error)
        joint = distributed.joint_error(error, retry)
        if last_step != -minus_first_step and out_of_memory(joint):
            # Some ranks have made this update and others have not: a smaller micro-batch would
            # let them train different weights.
            joint = RankError(f"memory ran out during an update that other ranks finished: {joint}")
        self._joint_error = joint
        return joint

    def _batches(self) -> Iterator[list[Any]]:
        """The remaining steps, each as the micro-batches of this rank."""
        parts = parts_of(
            self.trial.batch_size,
            rank=distributed.rank(),
            ranks=distributed.count(),
            most=self.micro_batch,
        )
        self._weights = [(part.stop - part.start) / self.trial.batch_size for part in parts]
        return self.source.training_steps(
            self.trial.batch_size,
            self.trial.steps,
            trial_seed(self.trial),
            start=self.step,
            parts=parts,
            device=self.accelerator.device,
        )

    def _train_step(self, batches: list[Any]) -> None:
        """One optimiser step over all micro-batches."""
        self.prepared.set_learning_rate(multiplier(self.recipe, self.step, self.trial.steps))
        if self.source.lengths is not None:
            self.counted.add(self.source.lengths.rule, batches)
        plain = self.task.weighting.is_plain
        loss = self._backward_pass(batches) if plain else self._weighed_pass(batches)
        self._require_finite(loss)
        if self.recipe.clip is not None:
            self.prepared.clip(self.prepared.parameters, self.recipe.clip)
        self.updating = True
        self.prepared.optimizer.step()
        self.updating = False
        self.prepared.optimizer.zero_grad()
        self._loss_sum += loss
        self.step += 1

    def _backward_pass(self, batches: list[Any]) -> torch.Tensor:
        """The mean loss of a step; its gradients are left on the parameters."""
        device, model = self.accelerator.device, self.prepared.model
        whole, losses = self._weights == [1.0], []  # then no product: the loss keeps its bits
        for batch, weight in zip(batches, self._weights, strict=True):
            loss = self.task.loss(model, send_to_device(batch, device, non_blocking=True))
            loss = loss if whole else loss * weight
            self.prepared.backward(loss)
            losses.append(loss.detach())
        loss = losses[0] if whole else sum(losses, torch.zeros((), device=device))
        return self._sum_over_ranks(loss)

    def _weighed_pass(self, batches: list[Any]) -> torch.Tensor:
        """The mean loss over all labels of a step, 0 if none counts; gradients are left too."""
        reference = self.trial.num_tokens / self.trial.steps  # the weight expected
        loss, weight = weighed_backward(self.task, self.prepared, batches, reference)
        loss = self._sum_over_ranks(loss)
        mean, total = divide_by_weight(self.prepared, loss, weight, reference)
        self.counted.empty_steps += not total
        return mean

    def _sum_over_ranks(self, loss: torch.Tensor) -> torch.Tensor:
        """Sum loss and gradients over the ranks, once all have finished their backward pass."""
        if self._one_rank:
            return loss
        send = distributed.gradient_sum(loss, self.prepared.parameters)
        if joint := self._agree():
            raise joint
        return send()

    def _require_finite(self, loss: torch.Tensor) -> None:
        """Raise if the loss is not finite: at once on a CPU, elsewhere with the next point.

        Reading the loss would make the host wait for an accelerator at every step.
        """
        if loss.device.type == "cpu":
            if not math.isfinite(loss.item()):
                raise diverged(loss.item(), self.step + 1)
            return
        first = (self._bad_step == 0) & ~torch.isfinite(loss)
        self._bad_step = torch.where(first, self.step + 1, self._bad_step)

    def _point(self) -> Point:
        """The training curve's point at this step.

        Raises:
            DivergedError: The loss was not finite in a step since the last point.
        """
        num_steps = self.step - self._logged_step - self.counted.empty_steps
        if num_steps:
            self._mean_loss = self._loss_sum.item() / num_steps
        if num_steps and not math.isfinite(self._mean_loss):
            raise diverged(self._mean_loss, int(self._bad_step.item()) or self.step)
        self._logged_step = self.step
        self.counted.empty_steps = 0
        self._loss_sum.zero_()
        share = self.step / self.trial.steps
        tokens = round(self.trial.num_tokens * share)
        last_share = multiplier(self.recipe, self.step - 1, self.trial.steps)
        return Point(
            num_tokens=tokens,
            flops=self.trial.flops * share,
            train_loss=self._mean_loss,
            learning_rate=last_share * self.prepared.peak_rates[0],
            tokens_per_second=tokens / self.seconds,
        )

    def _halve_micro_batch(self) -> None:
        self.prepared.optimizer.zero_grad()
        self.micro_batch = -(-self.micro_batch // 2)
        clear_device_cache(garbage_collection=True)
        _LOG.warning(
            "out of memory at step %d of size %r: the %d examples of a step are now processed %d "
            "at a time",
            self.step, self.trial.size, self.trial.batch_size, self.micro_batch,
        )  # fmt: skip

    def between_steps(self) -> None:
        """Save a checkpoint if one is due or a stop was requested, then stop if it was.

        Raises:
            KeyboardInterrupt, SystemExit: A signal asked to stop.
        """
        if self._one_rank:  # of several ranks, `_agree` has set both
            self._look_for_stop()
        if self._stop_signal or self._checkpoint_due:
            self.counted.gather()
            self._save(distributed.gather(rng_state()))

    def between_held_out_batches(self) -> None:
        """As `between_steps`, for the evaluation, which rank 0 makes alone."""
        self._look_for_stop()
        if self._stop_signal or self._checkpoint_due:
            self._save([rng_state()])

    def _look_for_stop(self) -> None:
        self._stop_signal = self.stop.signal
        self._checkpoint_due = self._is_due()

    def _is_due(self) -> bool:
        return self.keeper is not None and time.monotonic() - self._saved_at >= self.keeper.every_s

    def _save(self, generators: list[dict[str, Any]]) -> None:
        """Save a checkpoint; then raise if a signal asked to stop.

        Args:
            generators: The random state of every rank.
        """
        try:
            if self.keeper:
                self.keeper.save(self.step, self._state(generators))
                self._saved_at = time.monotonic()
        finally:
            if self._stop_signal:
                self.stop.signal = self._stop_signal
                raise self.stop.exception()

    def _state(self, generators: list[dict[str, Any]]) -> dict[str, Any]:
        """The content of a checkpoint. Its keys are a stored format."""
        return {
            **self.prepared.state(),
            "rng": generators,
            "total": self._loss_sum,
            "logged": self._logged_step,
            "mean": self._mean_loss,
            "seconds": self.seconds,
            "most": self.micro_batch,
            "counted": self.counted.state(),
        }

    def _restore(self, step: int, state: dict[str, Any]) -> None:
        """Take over the state of a checkpoint, made by `_state`."""
        self.prepared.restore(state)
        self.step = step
        self.seconds = state["seconds"]
        self.micro_batch = state["most"]
        self._loss_sum = state["total"].to(self.accelerator.device)
        self._logged_step = state["logged"]
        self._mean_loss = state["mean"]
        self.counted = Counted.restored(state.get("counted", ()))
        rank = distributed.rank()
        if rank < len(state["rng"]):  # the checkpoint may come from fewer ranks
            set_rng_state(state["rng"][rank])
