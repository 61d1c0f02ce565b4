"""The weight of a batch's loss is found by evaluating the same examples in two batchings."""

import pytest
import ragged
import torch
import torch.nn.functional as F
from ragged import LM, keyed, loader, masked, paired

from flops_fit.errors import FlopsFitWarning
from flops_fit.sweep.data.labels import LabelRule
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
