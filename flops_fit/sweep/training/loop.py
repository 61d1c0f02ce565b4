"""flops_fit.sweep.training.loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from flops_fit.errors import DivergedError, LostRankError, RankError
from flops_fit.records import Trial
from flops_fit.runtime import distributed
from flops_fit.runtime.rng import rng_state, set_rng_state, start_from
from flops_fit.runtime.signals import StopRequest
from flops_fit.sweep.data.batch_order import parts_of
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.checkpoint import DamagedError, Keeper
from flops_fit.sweep.training.optimizer import build_optimizer, multiplier
from flops_fit.sweep.training.recipe import Recipe

_LOG = logging.getLogger("flops_fit")


@dataclass(frozen=True)
class Point:
    """A point on a training curve.

    Attributes:
        num_tokens: Units of D seen so far.
        flops: FLOPs spent so far.
        train_loss: Mean training loss since the last point.
        learning_rate: Of the last step.
        tokens_per_second: Since the trial began.
    """

    num_tokens: int
    flops: float
    train_loss: float
    learning_rate: float
    tokens_per_second: float


Report = Callable[[Point], None]


def trial_seed(trial: Trial) -> int:
    """The seed of a trial's own randomness; trials of one sweep draw independent noise.

    Trials that differ in a multiplier of the learning rate share theirs, so that the rates are
    compared, not the seeds.
    """
    return int(trial.at_own_rate or trial.trial_id, 16) % 2**63


class _Training:
    """One trial in flight.

    Attributes:
        step: Steps done.
        seconds: Time spent on them, over all attempts; the held-out loss takes none of it.
        most: Examples that a part of a step (a micro-batch) may hold; halved when memory runs out.
        alone: Whether this process trains it by itself.
        asked: The signal that asked any rank to stop; 0 for none.
        due: Whether its state is to be kept.
        updating: Whether the parameters are changing: a fault then leaves no step to try again.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        task: Task,
        source: Source,
        trial: Trial,
        recipe: Recipe,
        keeper: Keeper | None,
        stop: StopRequest | None,
    ) -> None:
        self.accelerator, self.task, self.source = accelerator, task, source
        self.trial, self.recipe = trial, recipe
        self.keeper = keeper
        self.stop = StopRequest() if stop is None else stop
        model = task.build(trial.size)
        optimizer = build_optimizer(recipe, model, trial.learning_rate)
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        if recipe.compile:
            model.compile()
        # As for evaluation: DistributedDataParallel would hang where one rank runs out of memory.
        self.model = accelerator.prepare_model(model, evaluation_mode=True)
        prepared = accelerator.prepare_optimizer(optimizer)
        # Accelerate's wrappers cost tiny models a few per cent; only a gradient scaler needs them.
        if accelerator.scaler is None:
            self.optimizer, self.backward = prepared.optimizer, torch.Tensor.backward
            self.clip = torch.nn.utils.clip_grad_norm_
        else:
            self.optimizer, self.backward = prepared, accelerator.backward
            self.clip = accelerator.clip_grad_norm_
        self.parameters = list(self.model.parameters())
        self.every = max(1, trial.steps // recipe.log_points)
        self.most = -(-trial.batch_size // (distributed.count() * recipe.accumulate))
        self.alone, self.asked, self.due = distributed.count() == 1, 0, False
        self.joint: Exception | None = None
        self.last: Point | None = None
        self.step, self.logged, self.seconds, self.mean = 0, 0, 0.0, math.nan
        self._kept = time.monotonic()
        self.updating = False
        self.total = torch.zeros((), device=accelerator.device)
        self.first_bad = torch.zeros((), device=accelerator.device)

    def begin(self) -> None:
        """Take up what was kept, or start afresh; all ranks from the same weights."""
        if distributed.rank():  # dropout differs from share to share
            start_from((trial_seed(self.trial) + distributed.rank()) % 2**63)
        kept = distributed.from_main(lambda: self.keeper.load() if self.keeper else None)
        with distributed.together():
            if kept:
                try:
                    self._take_up(*kept)
                except Exception as error:
                    raise DamagedError(f"its checkpoint does not fit it: {error}") from error
        if not kept:
            distributed.copy_from_main([*self.model.parameters(), *self.model.buffers()])

    def run(self, report: Report) -> Point:
        """The remaining steps; returns the last point of the curve."""
        self.model.train()
        self._kept = time.monotonic()
        while (error := self._attempt(report)) is not None:
            if self.updating or self.most == 1 or not _out_of_memory(error):
                raise error
            self.joint = None
            del error  # its frames hold what the step had allocated
            self._halve()
        return self.last or self._point()

    def _attempt(self, report: Report) -> Exception | None:
        """Do the remaining steps; returns what kept this rank, or any, from doing them."""
        started = time.perf_counter() - self.seconds
        try:
            for batches in self._batches() if self.step < self.trial.steps else ():
                self._advance(batches)
                self.seconds = time.perf_counter() - started
                if self.step % self.every == 0 or self.step == self.trial.steps:
                    self.last = self._point()
                    report(self.last)
                self.between_steps()
        except LostRankError:
            raise
        except Exception as error:
            return error if error is self.joint else self._verdict(error)
        return self._verdict()  # another rank's last update may have failed

    def _verdict(self, error: Exception | None = None) -> Exception | None:
        """What all ranks raise if any has failed; also settles what follows this step."""
        failed, self.asked, due, last, first = distributed.most(
            error is not None, self.stop.signal, self._is_due(), self.step, -self.step
        )
        self.due = bool(due)
        if not failed:
            return None
        short = error is not None and not self.updating and _out_of_memory(error)
        joint = distributed.joint_error(error, short)
        if last != -first and _out_of_memory(joint):
            joint = RankError(f"memory ran out in an update that others have done ({joint})")
        self.joint = joint
        return joint

    def _batches(self) -> Iterator[list[Any]]:
        parts = parts_of(
            self.trial.batch_size,
            rank=distributed.rank(),
            ranks=distributed.count(),
            most=self.most,
        )
        self.weights = [(part.stop - part.start) / self.trial.batch_size for part in parts]
        return self.source.training_steps(
            self.trial.batch_size,
            self.trial.steps,
            trial_seed(self.trial),
            start=self.step,
            parts=parts,
            device=self.accelerator.device,
        )

    def _advance(self, batches: list[Any]) -> None:
        """One optimiser step over all parts of a batch."""
        rate = multiplier(self.recipe, self.step, self.trial.steps)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * rate
        loss = self._gradients(batches)
        if not self.alone:
            loss = self._over_ranks(loss)
        self._require_finite(loss)
        if self.recipe.clip is not None:
            self.clip(self.parameters, self.recipe.clip)
        self.updating = True
        self.optimizer.step()
        self.updating = False
        self.optimizer.zero_grad()
        self.total += loss
        self.step += 1

    def _gradients(self, batches: list[Any]) -> torch.Tensor:
        """Loss of a step, as far as it is this rank's, its gradients left on the parameters."""
        device, whole = self.accelerator.device, self.weights == [1.0]
        losses = []
        for batch, weight in zip(batches, self.weights, strict=True):
            loss = self.task.loss(self.model, send_to_device(batch, device, non_blocking=True))
            loss = loss if whole else loss * weight
            self.backward(loss)
            losses.append(loss.detach())
        return losses[0] if whole else sum(losses, torch.zeros((), device=device))

    def _over_ranks(self, loss: torch.Tensor) -> torch.Tensor:
        """Mean loss of a step, and its gradients, once all ranks have done their share."""
        send = distributed.gradient_sum(loss, self.parameters)
        if joint := self._verdict():
            raise joint
        return send()

    def _require_finite(self, loss: torch.Tensor) -> None:
        """On the CPU at once; elsewhere the step is noted and looked at with the next point."""
        if loss.device.type == "cpu":
            if not math.isfinite(loss.item()):
                raise _diverged(loss.item(), self.step + 1)
            return
        first = (self.first_bad == 0) & ~torch.isfinite(loss)
        self.first_bad = torch.where(first, self.step + 1, self.first_bad)

    def _point(self) -> Point:
        if self.step > self.logged:
            self.mean = self.total.item() / (self.step - self.logged)
        if not math.isfinite(self.mean):
            raise _diverged(self.mean, int(self.first_bad.item()) or self.step)
        self.logged = self.step
        self.total.zero_()
        share = self.step / self.trial.steps
        tokens = round(self.trial.num_tokens * share)
        rate = multiplier(self.recipe, self.step - 1, self.trial.steps) * self.peaks[0]
        return Point(tokens, self.trial.flops * share, self.mean, rate, tokens / self.seconds)

    def _halve(self) -> None:
        self.optimizer.zero_grad()
        self.most = -(-self.most // 2)
        clear_device_cache(garbage_collection=True)
        _LOG.warning(
            "out of memory at step %d of size %r: a step's %d examples now pass %d at a time",
            self.step, self.trial.size, self.trial.batch_size, self.most,
        )  # fmt: skip

    def between_steps(self) -> None:
        """Keep the state where that is due; leave where asked to."""
        if self.alone:
            self.asked, self.due = self.stop.signal, self._is_due()
        if self.asked or self.due:
            self._keep(distributed.gather(rng_state()))

    def between_held_out_batches(self) -> None:
        """The same after the last step, where rank 0 works alone."""
        self.asked, self.due = self.stop.signal, self._is_due()
        if self.asked or self.due:
            self._keep([rng_state()])

    def _is_due(self) -> bool:
        return self.keeper is not None and time.monotonic() - self._kept >= self.keeper.every_s

    def _keep(self, generators: list[dict[str, Any]]) -> None:
        try:
            if self.keeper:
                self.keeper.save(self.step, self._state(generators))
                self._kept = time.monotonic()
        finally:
            if self.asked:
                self.stop.signal = self.asked
                raise self.stop.exception()

    def _state(self, generators: list[dict[str, Any]]) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "buffers": self._other_buffers(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "rng": generators,
            "total": self.total,
            "logged": self.logged,
            "mean": self.mean,
            "seconds": self.seconds,
            "most": self.most,
        }

    def _other_buffers(self) -> dict[str, torch.Tensor]:
        """Buffers that the model's state leaves out: training may have changed them."""
        model = self.accelerator.unwrap_model(self.model)
        held = model.state_dict().keys()
        return {name: buffer for name, buffer in model.named_buffers() if name not in held}

    def _take_up(self, step: int, state: dict[str, Any]) -> None:
        """Go on from a kept state."""
        self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
        for name, buffer in self._other_buffers().items():
            buffer.copy_(state["buffers"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.total = state["total"].to(self.accelerator.device)
        self.step, self.logged, self.mean = step, state["logged"], state["mean"]
        self.seconds, self.most = state["seconds"], state["most"]
        if distributed.rank() < len(state["rng"]):  # fewer ranks may have kept it
            set_rng_state(state["rng"][distributed.rank()])


def _diverged(loss: float, step: int) -> DivergedError:
    return DivergedError(f"the training loss is {loss} at step {step}", step)


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(
        error
    )
