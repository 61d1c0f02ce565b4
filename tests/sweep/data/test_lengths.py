"""Examples that differ in length: which labels count, how many, and how far they are padded."""

import pytest
import torch
from ragged import keyed, loader, masked, paired, rows
from torch.utils.data import DataLoader, IterableDataset

from flops_fit.errors import ArgumentError
from flops_fit.sweep.data.labels import LabelRule
from flops_fit.sweep.data.loading import open_source
from flops_fit.sweep.task.model_cost import cost_of
from flops_fit.sweep.task.task import Task


class Stream(IterableDataset):
    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


@pytest.mark.parametrize(
    ("collate", "rule"),
    [
        (keyed, LabelRule(ignored=-100)),
        (masked, LabelRule(mask="attention_mask")),
        (paired, LabelRule(ignored=0)),
    ],
)
@pytest.mark.parametrize("ordered", [True, False])
def test_d_is_the_mean_of_the_labels_that_count(collate, rule, ordered):
    data = rows(400, ordered=ordered)
    source = open_source(loader(collate, data), loader(collate, data))
    assert source.lengths.rule == rule
    true_mean = sum(map(len, data)) / len(data)
    assert source.tokens_per_example == pytest.approx(true_mean, rel=1e-9)
    assert source.num_tokens == sum(map(len, data))
    assert source.unit == "tokens"


def test_a_stream_is_measured_on_its_first_examples():
    data = rows(400)
    source = open_source(loader(keyed, Stream(data)), loader(keyed, Stream(data)))
    assert source.tokens_per_example == sum(map(len, data[:256])) / 256


def test_padding_is_that_of_batches_as_training_draws_them():
    data = rows(1000, ordered=True)
    source = open_source(loader(keyed, data))
    drawn = 0
    for (batch,) in source.training_steps(8, 100, seed=1):
        drawn += batch["labels"].numel()
    assert source.lengths.elements(8) == pytest.approx(drawn / 800, rel=0.05)
    assert source.lengths.elements(1) == pytest.approx(source.tokens_per_example, rel=0.01)
    assert source.padding_at(8) == 1
    assert source.padding_at(32) > 1.05


@pytest.mark.parametrize("data", [[torch.arange(9)] * 50, rows(50, 7, 7)])
def test_equal_lengths_are_not_counted(data):
    source = open_source(loader(keyed, data))
    assert source.lengths is None
    assert (source.tokens_per_example, source.padding_at(64)) == (len(data[0]), 1.0)


def test_a_few_shorter_examples_among_equal_ones_are_seen():
    data = [torch.arange(5 if k % 10 == 0 else 9) for k in range(400)]
    source = open_source(loader(keyed, data), loader(keyed, data))
    assert source.tokens_per_example == pytest.approx(8.6, abs=0.05)


def test_costed_batches_stand_for_all_tokens_that_count():
    lengths = open_source(loader(keyed, rows(1000))).lengths
    per_label = [batch["labels"].numel() / labels for batch, labels in lengths.costed(8)]
    expected = lengths.elements(8) / lengths.mean
    assert sum(per_label) / 3 == pytest.approx(expected, rel=1e-9)


def test_lengths_that_only_later_rows_show_are_a_fault_of_the_default_collate():
    data = [(torch.zeros(4 + (k == 30)), 0) for k in range(60)]
    with pytest.raises(ArgumentError, match=r"(?s)dataset: collating .*collate_fn that pads"):
        open_source(data)


def ignored_all(examples):
    batch = keyed(examples)
    return {**batch, "labels": torch.full_like(batch["labels"], -100)}


@pytest.mark.parametrize("argument", ["dataset", "eval_dataset"])
def test_data_without_any_label_that_counts_are_refused(argument):
    good, bad = loader(keyed), loader(ignored_all)
    data = (bad, good) if argument == "dataset" else (good, bad)
    with pytest.raises(ArgumentError, match=f"^{argument}: none of the .* has a label that counts"):
        open_source(*data)


def test_classes_without_a_label_count_as_no_example():
    data = [(torch.zeros(4), -100 if k % 2 else k % 3) for k in range(100)]
    source = open_source(data, data)
    assert (source.unit, source.tokens_per_example, source.num_tokens) == ("examples", 0.5, 50)


def test_a_generator_function_is_called_anew_for_each_pass():
    calls = []

    def generate():
        calls.append(1)
        yield from ((torch.full((4,), float(k)), k % 3) for k in range(40))

    source = open_source(generate)
    seen = [x for ((x, _),) in source.training_steps(19, 4, seed=0)]
    assert torch.equal(seen[0], seen[2])
    assert len(calls) > 2


@pytest.mark.parametrize("ragged", [True, False])
def test_rows_of_python_lists_get_the_advice_of_their_library(ragged):
    data = [{"input_ids": list(range(3 + (ragged and k % 2))), "labels": [1] * 3} for k in range(9)]
    with pytest.raises(ArgumentError, match=r"Python list of numbers|differ in size: pad"):
        open_source(data)


class Pooled(torch.nn.Module):
    """Classifies sequences of any length."""

    def __init__(self, width):
        super().__init__()
        self.inner, self.out = torch.nn.Linear(1, width), torch.nn.Linear(width, 3)

    def forward(self, x):
        return self.out(self.inner(x[..., None]).mean(1))

    def num_params(self):
        return sum(p.numel() for p in self.parameters())


@pytest.mark.parametrize("target", [lambda k: torch.tensor(k % 3), lambda k: torch.randn(3)])
def test_inputs_that_differ_in_length_are_costed_as_they_are_padded(target):
    """One label a row: D counts rows, and C what they are padded to."""
    rows = [(torch.randn(4 + k // 4), target(k)) for k in range(800)]

    def collate(batch):
        inputs = torch.nn.utils.rnn.pad_sequence([x for x, _ in batch], batch_first=True)
        return inputs, torch.stack([y for _, y in batch])

    source = open_source(DataLoader(rows, batch_size=8, shuffle=True, collate_fn=collate))
    assert (source.unit, source.tokens_per_example) == ("examples", 1)
    loss = torch.nn.functional.cross_entropy
    cost = cost_of(Task(Pooled, "width", {}, rows, loss), source, 8)
    mean_length = sum(len(x) for x, _ in rows) / 800
    per_place = 3 * 2 * 8 - 2 * 8  # no gradient by the input
    assert cost.flops_per_token > 1.3 * per_place * mean_length
    assert cost.flops_per_token < 2.0 * per_place * mean_length
