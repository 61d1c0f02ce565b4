"""Data sets of Hugging Face's `datasets` without torch format, and of the same interface."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from flops_fit.errors import ArgumentError
from flops_fit.sweep.data.loading import open_source

ROWS = [
    {"input_ids": [i, 1, 2], "labels": [1, 2, i], "label": i % 3, "text": f"row {i}"}
    for i in range(40)
]


class Fake:
    """A map-style data set of `datasets`, as far as it is used here."""

    def __init__(self, rows, columns=None, kind=None):
        self.rows, self.columns, self.kind = rows, columns or list(rows[0]), kind

    format = property(lambda self: {"type": self.kind, "columns": self.columns})

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = {name: self.rows[index][name] for name in self.columns}
        if self.kind != "torch":
            return row
        return {k: v if isinstance(v, str) else torch.tensor(v) for k, v in row.items()}

    def select_columns(self, columns):
        return Fake(self.rows, columns, self.kind)

    def with_format(self, kind):
        return Fake(self.rows, self.columns, kind)

    def with_transform(self, transform):
        return Fake([transform(row) for row in self.rows], kind="custom")


def hub(rows):
    datasets = pytest.importorskip("datasets", reason="datasets (extra hub) is not installed")
    return datasets.Dataset.from_list(rows)


def hub_stream(rows):
    return hub(rows).to_iterable_dataset()


@pytest.fixture(params=[Fake, hub, hub_stream])
def made(request):
    return request.param


def in_loader(data):
    return DataLoader(data, batch_size=4)


@pytest.mark.parametrize("given", [lambda data: data, in_loader, lambda data: lambda: data])
def test_lists_are_read_as_tensors_which_is_said(made, given):
    source = open_source(given(made(ROWS)))
    assert source.notes[0] == (
        'dataset: lists of numbers are read as tensors, as by with_format("torch") of the Hugging '
        "Face dataset; left out, because they hold no numbers: 'text'"
    )
    batch = source.held_out_sample()
    assert set(batch) == {"input_ids", "labels", "label"}
    assert batch["input_ids"].dtype == torch.int64
    assert batch["labels"].shape == (2, 3)
    (step,) = next(source.training_steps(4, 2, 0))
    assert step["labels"].shape == (4, 3)


def test_both_data_sets_are_read_so(made):
    rows = [{name: row[name] for name in ("input_ids", "labels")} for row in ROWS]
    source = open_source(made(rows), made(rows))
    assert [note.partition(":")[0] for note in source.notes] == ["dataset", "eval_dataset"]
    assert "left out" not in " ".join(source.notes)
    assert source.sample["input_ids"].shape == (2, 3)


@pytest.mark.parametrize("made", [Fake, hub])
def test_it_is_the_same_data_as_with_the_format_given(made):
    data = made(ROWS).select_columns(["input_ids", "labels", "label"])
    ours, own = open_source(data), open_source(data.with_format("torch"))
    assert own.read_as == ()
    assert ours.fingerprint == own.fingerprint
    assert ours.sample["labels"].equal(own.sample["labels"])
    assert pickle.loads(pickle.dumps(ours.train))[0]["labels"].tolist() == [1, 2, 0]


@pytest.mark.parametrize("made", [Fake, hub])
def test_a_transform_and_a_collate_function_are_the_users_own(made):
    def as_tensors(row):
        return {"labels": torch.as_tensor(row["labels"])}

    assert open_source(made(ROWS).with_transform(as_tensors)).read_as == ()

    def collate(rows):
        return default_collate([{"labels": torch.tensor(row["labels"])} for row in rows])

    source = open_source(DataLoader(made(ROWS), batch_size=2, collate_fn=collate))
    assert source.read_as == ()
    assert source.sample["labels"].shape == (2, 3)


def test_numbers_alone_need_nothing(made):
    source = open_source(made([{"x": 0.5 * i, "labels": i % 2} for i in range(40)]))
    assert source.read_as == ()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"body": "a"}] * 40,
            r"it is text: tokenise it first. .*tokenizer\(row\['body'\]",
        ),
        ([{"ids": [1] * (1 + i), "labels": 1} for i in range(40)], "differ in size: pad or cut"),
    ],
)
def test_what_a_format_does_not_mend_is_refused_with_advice(made, rows, message):
    with pytest.raises(ArgumentError, match=f"(?s)dataset: .*{message}"):
        open_source(made(rows))


@pytest.mark.parametrize("made", [Fake, hub])
def test_of_several_splits_one_is_to_be_passed(made):
    with pytest.raises(ArgumentError, match=r"pass one of its splits \('train', 'test'\)"):
        open_source({"train": made(ROWS), "test": made(ROWS)})
