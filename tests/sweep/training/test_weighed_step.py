"""The loss is the mean over all labels, in whatever batches it is taken; D is what was trained."""

from dataclasses import replace

import pytest
import ragged
import torch
from ragged import LM, keyed, loader, rows
from trials import RECIPE, a_trial

from flops_fit.errors import DivergedError
from flops_fit.sweep.data.batch_order import trial_seed
from flops_fit.sweep.data.labels import LabelRule
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.task.weighting import Weighting
from flops_fit.sweep.training.checkpoint import Keeper
from flops_fit.sweep.training.train import train

RULE = LabelRule(ignored=-100)
BY_LABELS = Weighting("labels", RULE)
BY_NEXT = Weighting("labels", replace(RULE, skipped=1))
RETURNED = Weighting("returned", RULE)
FORMS = [
    (ragged.label_mean, BY_LABELS),
    (ragged.next_label_mean, BY_NEXT),
    (ragged.sum_and_count, RETURNED),
    (ragged.row_mean, Weighting("rows", RULE)),
]


class Same(LM):
    """The same weights whatever the trial."""

    def __init__(self, width):
        super().__init__(width)
        torch.manual_seed(3)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter)


def some_empty(examples):
    """The rows that begin with 1 or 2 have no label that counts."""
    batch = keyed(examples)
    batch["labels"][[int(row[0]) < 3 for row in examples]] = -100
    return batch


def run(loss, weighting, trial=None, collate=keyed, recipe=RECIPE, **options):
    task = Task(Same, "width", {}, loader(collate), loss, loader(collate, rows(60)))
    task = replace(task, weighting=weighting)
    points = []
    outcome = train(task, task.open(), trial or a_trial(), recipe, points.append, **options)
    return outcome, points


@pytest.mark.parametrize(("loss", "weighting"), FORMS)
@pytest.mark.parametrize("collate", [keyed, some_empty])
def test_the_held_out_loss_does_not_depend_on_the_batch(loss, weighting, collate):
    losses = [
        run(loss, weighting, a_trial(1, batch, rate=1e-12), collate)[0].loss for batch in (1, 7, 64)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


@pytest.mark.parametrize(("loss", "weighting"), FORMS)
@pytest.mark.parametrize("collate", [keyed, some_empty])
def test_training_does_not_depend_on_micro_batches(loss, weighting, collate):
    whole, points = run(loss, weighting, collate=collate)
    parts, parts_points = run(
        loss, weighting, collate=collate, recipe=replace(RECIPE, accumulate=5)
    )
    assert parts.loss == pytest.approx(whole.loss, rel=1e-4)
    assert [p.train_loss for p in parts_points] == pytest.approx(
        [p.train_loss for p in points], rel=1e-4
    )


def test_a_step_of_one_part_is_the_loss_of_its_batch():
    _, points = run(ragged.label_mean, BY_LABELS, a_trial(1, 8))
    task = Task(Same, "width", {}, loader(), ragged.label_mean, loader(data=rows(60)))
    ((batch,),) = task.open().training_steps(8, 1, trial_seed(a_trial(1, 8)))
    expected = ragged.label_mean(Same(8)(**batch), batch).item()
    assert points[0].train_loss == pytest.approx(expected, rel=1e-6)


def test_d_is_counted_and_c_grows_with_the_padding():
    trial = replace(a_trial(50, 8), num_tokens=6600, padded_tokens=10_000, flops=1e6)
    outcome, _ = run(ragged.label_mean, BY_LABELS, trial)
    task = Task(Same, "width", {}, loader(), ragged.label_mean, loader(data=rows(60)))
    batches = [batch for (batch,) in task.open().training_steps(8, 50, trial_seed(trial))]
    assert outcome.num_tokens == sum(RULE.count(batch) for batch in batches)
    assert outcome.padded_tokens == sum(batch["labels"].numel() for batch in batches)
    assert outcome.flops == 1e6 * outcome.padded_tokens / 10_000
    parts, _ = run(ragged.label_mean, BY_LABELS, trial, recipe=replace(RECIPE, accumulate=8))
    assert parts.num_tokens == parts.padded_tokens == outcome.num_tokens


@pytest.mark.slow
def test_counts_go_on_after_a_stop(tmp_path):
    class Stopped(Exception):
        pass

    def stop(point):
        if point.num_tokens == 40:
            raise Stopped

    whole, _ = run(ragged.label_mean, BY_LABELS)
    keeper, recipe = Keeper(tmp_path / "kept", every_s=0.0), replace(RECIPE, log_points=20)
    task = Task(Same, "width", {}, loader(), ragged.label_mean, loader(data=rows(60)))
    task = replace(task, weighting=BY_LABELS)
    with pytest.raises(Stopped):
        train(task, task.open(), a_trial(), recipe, stop, keeper)
    again = train(task, task.open(), a_trial(), recipe, lambda point: None, keeper)
    assert (again.loss, again.num_tokens) == (whole.loss, whole.num_tokens)


def test_steps_without_any_label_are_no_divergence():
    outcome, points = run(ragged.label_mean, BY_LABELS, a_trial(60, 1), some_empty)
    assert outcome.loss > 0
    assert all(point.train_loss > 0.1 for point in points[5:])


def test_a_loss_that_is_not_finite_still_diverges():
    def broken(outputs, batch):
        return ragged.label_mean(outputs, batch) * float("nan")

    with pytest.raises(DivergedError, match="training loss is nan at step 1"):
        run(broken, BY_LABELS)


def test_metrics_weigh_as_the_loss_or_by_their_own_count():
    task = Task(Same, "width", {}, loader(), ragged.label_mean, loader(data=rows(60)))
    metrics = {"again": ragged.label_mean, "summed": ragged.sum_and_count}
    task = replace(task, weighting=BY_LABELS, metrics=metrics)
    outcome = train(task, task.open(), a_trial(), RECIPE, lambda point: None)
    assert outcome.metrics["again"] == outcome.loss
    assert outcome.metrics["summed"] == pytest.approx(outcome.loss, rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(precision):
    recipe = replace(RECIPE, precision=precision)
    by_mean, _ = run(ragged.label_mean, BY_LABELS, recipe=recipe)
    by_sum, _ = run(ragged.sum_and_count, RETURNED, recipe=recipe)
    assert by_sum.loss == pytest.approx(by_mean.loss, rel=0.02)
