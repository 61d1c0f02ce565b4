"""The weight of a batch's loss is found by evaluating the same examples in two batchings."""

import warnings

import pytest
import ragged
import torch
import torch.nn.functional as F
from nets import MLP
from ragged import LM, keyed, loader, masked, paired
from torch.utils.data import TensorDataset

from flops_fit.errors import FlopsFitWarning
from flops_fit.sweep.data.labels import LabelRule
from flops_fit.sweep.data.loading import open_source
from flops_fit.sweep.plan.loss_probe import find_weighting
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.task.weighting import Weighting


def found(task, size=8):
    return find_weighting(task, task.open(), size)


@pytest.mark.parametrize(
    ("collate", "loss", "by", "rule"),
    [
        (keyed, ragged.label_mean, "labels", LabelRule(ignored=-100)),
        (keyed, ragged.next_label_mean, "labels", LabelRule(ignored=-100, skipped=1)),
        (masked, ragged.mask_mean, "labels", LabelRule(mask="attention_mask")),
        (paired, ragged.zero_mean, "labels", LabelRule(ignored=0)),
        (keyed, ragged.row_mean, "rows", LabelRule(ignored=-100)),
        (keyed, ragged.sum_and_count, "returned", LabelRule(ignored=-100)),
    ],
)
def test_the_weights_of_a_loss(collate, loss, by, rule):
    with pytest.warns(FlopsFitWarning, match="differ in length: 3 to 30 tokens"):
        assert found(Task(LM, "width", {}, loader(collate), loss)) == Weighting(by, rule)


def test_a_new_model_with_one_loss_for_all_labels_shows_them_too():
    class Flat(LM):
        def __init__(self, width):
            super().__init__(width)
            torch.nn.init.zeros_(self.head.weight)
            torch.nn.init.zeros_(self.head.bias)

    with pytest.warns(FlopsFitWarning, match="differ in length"):
        weighting = found(Task(Flat, "width", {}, loader(), ragged.next_label_mean))
    assert weighting == Weighting("labels", LabelRule(ignored=-100, skipped=1))


@pytest.mark.filterwarnings("ignore:dataset. its examples differ")
def test_other_losses_are_evaluated_in_one_batch_size():
    with pytest.warns(FlopsFitWarning, match=r"batches of one size.*return \(sum, count\)"):
        assert found(Task(LM, "width", {}, loader(), ragged.odd_mean)).fixed_batch


@pytest.mark.filterwarnings("ignore:dataset. its examples differ")
def test_a_model_that_sees_padding_is_evaluated_in_one_batch_size():
    class Sees(LM):
        def forward(self, input_ids, labels):
            return self.head(self.embed(input_ids).mean(1, keepdim=True) + self.embed(input_ids))

    with pytest.warns(FlopsFitWarning, match="batches of one size"):
        assert found(Task(Sees, "width", {}, loader(), ragged.label_mean)).fixed_batch


def test_equal_examples_weigh_the_same(mlp, classes, cross_entropy):
    assert found(Task(mlp, "width", {}, classes, cross_entropy)).is_plain


def test_a_random_loss_is_taken_as_the_data_suggest(mlp, classes):
    def noisy(outputs, targets):
        return F.cross_entropy(outputs + torch.randn_like(outputs), targets)

    assert found(Task(mlp, "width", {}, classes, noisy)).is_plain


def test_class_weights_are_no_mean_over_rows(mlp, classes):
    loss = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.2]))
    with pytest.warns(FlopsFitWarning, match="batches of one size"):
        assert found(Task(mlp, "width", {}, classes, loss)).fixed_batch


@pytest.mark.filterwarnings("ignore:dataset. its examples differ")
def test_rows_without_labels_are_named():
    data = ragged.rows(100)

    def collate(examples):
        batch = keyed(examples)
        batch["labels"][[len(row) > 25 for row in examples]] = -100
        return batch

    with pytest.warns(FlopsFitWarning, match=r"\d+ of 95 examples read have no label that counts"):
        weighting = found(Task(LM, "width", {}, loader(collate, data), ragged.label_mean))
    assert weighting == Weighting("labels", LabelRule(ignored=-100))


class PixelNet(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, width, 1), torch.nn.ReLU(), torch.nn.Conv2d(width, 3, 1)
        )

    def num_params(self):
        return sum(p.numel() for p in self.parameters())

    def forward(self, x):
        return self.layers(x)


def test_images_with_an_ignored_border_and_one_that_is_all_ignored():
    """NVIDIA/DIGITS issue 1285: one image with nothing but the label "ignore"."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 1, 6, 6, generator=generator)
    y = (x[:, 0] > 0).long()
    for k in range(60):
        y[k, k % 5 :] = 255
    y[0] = 255
    data = torch.utils.data.TensorDataset(x, y)

    def loss(outputs, targets):
        return F.cross_entropy(outputs, targets, ignore_index=255)

    weighting = found(Task(PixelNet, "width", {}, data, loss, data))
    assert weighting == Weighting("labels", LabelRule(ignored=255))


def test_rows_that_hold_all_labels_or_none_weigh_their_labels():
    """Every tenth row has no label: a mean over labels of such a row is NaN."""
    x, y = torch.randn(400, 4), torch.arange(400) % 3
    y[::10] = -100
    task = Task(MLP, "width", {}, TensorDataset(x, y), torch.nn.functional.cross_entropy)
    source = task.open()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = find_weighting(task, source, 8)
    empty, full = (x[:2], torch.full((2,), -100)), (x[:2], torch.zeros(2, dtype=torch.long))
    assert (found.weight(empty), found.weight(full)) == (0, 2)


def test_a_rare_row_without_labels_is_found_in_data_in_memory():
    y = torch.arange(4000) % 3
    y[1777] = -100
    source = open_source(TensorDataset(torch.randn(4000, 4), y))
    assert 0 in (source.lengths or source.held_out_lengths).counts
