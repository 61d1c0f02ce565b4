import warnings
from collections import UserDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from flops_fit.errors import ArgumentError, FlopsFitWarning
from flops_fit.sweep.data.held_out import RANDOM
from flops_fit.sweep.data.loading import open_source
from flops_fit.sweep.data.source import count_examples


def indices(loader, batches=None):
    """Which examples of `Numbered` or `Stream` a loader gives."""
    taken = (batch for batch, _ in zip(loader, range(batches or 10**9), strict=False))
    return [int(x[0]) for inputs, _ in taken for x in inputs]


def trained_on(source, *args, **options):
    """Which examples of `Numbered` or `Stream` a source trains on."""
    return indices(batch for step in source.training_steps(*args, **options) for batch in step)


class Pairs(Dataset):
    """Whatever `example(index)` says."""

    def __init__(self, example, count=40):
        self.example, self.count = example, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.example(index)


class NoLength(Dataset):
    def __getitem__(self, index):
        return torch.zeros(4), 0


READ_ONCE = iter([(torch.zeros(4), 0)] * 9)


class OneShot(IterableDataset):
    """A stream that hands out the same iterator every time."""

    def __init__(self):
        self.pairs = iter([(torch.zeros(4), k % 3) for k in range(100)])

    def __iter__(self):
        return self.pairs


def generated():
    for k in range(40):
        yield torch.full((4,), float(k)), k % 3


@pytest.mark.parametrize(
    "factory", [generated, lambda: (pair for pair in generated()), lambda: iter(list(generated()))]
)
def test_a_generator_function_is_called_again_for_each_pass(factory):
    source = open_source(factory)
    assert source.num_examples == 38
    with pytest.warns(FlopsFitWarning, match="read again"):
        trained = trained_on(replace(source, num_examples=None), 19, steps=4, seed=1)
    assert trained[:38] == trained[38:]
    assert len(indices(source.held_out_batches(8, 100))) == 2


def test_map_style_set_is_split_once_and_for_all(numbered):
    source = open_source(numbered(100))
    held_out = indices(source.held_out_batches(8, max_examples=10**6))
    trained = trained_on(source, 8, steps=40, seed=1)
    assert len(held_out) == len(set(held_out)) == 5
    assert held_out == [9, 29, 49, 69, 89]
    assert set(trained) == set(range(100)) - set(held_out)
    assert indices(open_source(numbered(100)).held_out_batches(3, 10**6)) == held_out
    assert source.num_examples == 95
    assert "held out: 5 of 100 examples, in 5 blocks of 1 example" in source.notes[-1]


def test_an_older_split_is_that_of_random_examples(numbered):
    source = open_source(numbered(100), rule=RANDOM)
    held_out = indices(source.held_out_batches(8, max_examples=10**6))
    assert held_out == [19, 44, 71, 90, 93]  # a stored format
    assert set(trained_on(source, 8, steps=40, seed=1)) == set(range(100)) - set(held_out)
    assert "as when this sweep began" in source.notes[-1]


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("shared_out", [True, False])
def test_stream_never_trains_on_what_it_holds_out(stream, workers, shared_out):
    loader = DataLoader(stream(100, shared_out), batch_size=5, num_workers=workers)
    source = open_source(loader)
    trained = trained_on(source, 5, steps=38, seed=0)
    held_out = indices(source.held_out_batches(5, max_examples=10**6))
    assert held_out == [0, 20, 40, 60, 80]
    assert set(trained) == set(range(100)) - set(held_out)
    assert len(trained) == 2 * 95  # two passes, no example doubled by a second worker


def test_workers_of_a_stream_are_kept_where_eval_dataset_is_given(stream):
    source = open_source(DataLoader(stream(100), batch_size=5, num_workers=2), stream(20))
    assert trained_on(source, 5, steps=2, seed=0) == [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]


def test_a_stream_shorter_than_it_says_is_read_again_with_a_warning(stream):
    class Boastful(stream):
        def __len__(self):
            return 10 * self.count

    source = open_source(Boastful(50), stream(20))
    with pytest.warns(FlopsFitWarning, match="ended after 50 examples and is read again"):
        assert len(trained_on(source, 40, steps=3, seed=0)) == 120


@pytest.mark.parametrize(("count", "known"), [(3, 2), (999, 949), (2000, None)])
def test_short_streams_are_counted(stream, count, known):
    assert open_source(stream(count)).num_examples == known


def test_a_long_stream_that_ends_is_read_again_with_a_warning(stream):
    source = open_source(stream(1100), stream(20))
    with pytest.warns(
        FlopsFitWarning, match="ended after 1,100 examples and is read again"
    ) as seen:
        assert len(trained_on(source, 500, steps=7, seed=0)) == 3500
    assert len(seen) == 1


def test_a_stream_that_differs_at_each_reading_is_split_with_a_warning():
    class Noise(IterableDataset):
        def __iter__(self):
            for _ in range(100):
                yield torch.randn(4), 0

    with pytest.warns(FlopsFitWarning, match="different examples each time.*pass eval_dataset"):
        open_source(Noise())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_source(Noise(), Noise())


def test_eval_dataset_leaves_the_data_whole(numbered):
    source = open_source(numbered(10), numbered(7))
    assert source.num_examples == 10
    assert indices(source.held_out_batches(4, 10**6)) == list(range(7))
    assert indices(source.held_out_batches(4, 3)) == [0, 3, 6]
    assert sorted(trained_on(source, 5, steps=2, seed=0)) == list(range(10))


def test_length_of_a_stream_counts_its_training_share_where_known(stream):
    class Sized(stream):
        def __len__(self):
            return self.count

    assert open_source(Sized(41)).num_examples == 38
    assert open_source(Sized(41), Sized(5)).num_examples == 41
    assert open_source(stream(2000)).num_tokens is None


def test_loader_keeps_batch_size_collate_and_workers(numbered):
    def collate(examples):
        return torch.stack([x for x, _ in examples]) + 1000, torch.tensor([y for _, y in examples])

    def worker_init(worker):
        pass

    loader = DataLoader(
        numbered(40),
        batch_size=6,
        shuffle=True,
        collate_fn=collate,
        num_workers=2,
        worker_init_fn=worker_init,
    )
    source = open_source(loader)
    assert source.batch_size == 6
    assert (source.num_workers, source.worker_init_fn) == (2, worker_init)
    assert min(trained_on(source, 6, steps=3, seed=0)) >= 1000
    assert min(indices(source.held_out_batches(6, 100))) >= 1000


def test_each_loader_collates_its_own_and_a_bare_eval_dataset_as_the_data():
    def ragged(count):
        return Pairs(lambda i: (torch.zeros(1 + i % 3), i % 3), count)

    def collate_to(width):
        def collate(examples):
            return torch.zeros(len(examples), width), torch.tensor([y for _, y in examples])

        return collate

    def loader(width):
        return DataLoader(ragged(40), batch_size=4, collate_fn=collate_to(width))

    for held_out, width in ((ragged(9), 5), (loader(7), 7), (None, 5)):
        batch = next(iter(open_source(loader(5), held_out).held_out_batches(4, 9)))
        assert batch[0].shape[1] == width


def test_factories_are_called(numbered, stream):
    assert open_source(lambda: numbered(40)).num_examples == 38
    assert open_source(lambda: DataLoader(stream(40), batch_size=3)).batch_size == 3

    def broken():
        raise OSError("no disk")

    with pytest.raises(ArgumentError, match="calling the factory raised OSError: no disk"):
        open_source(broken)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "expected a map-style Dataset.*got builtins.int"),
        ("train.csv", "expected a map-style Dataset.*got builtins.str"),
        ({"train": []}, "expected a map-style Dataset.*got builtins.dict"),
        ([], "it is empty"),
        (NoLength(), "NoLength has no __len__"),
        (DataLoader(NoLength()), "NoLength has no __len__"),
        ((pair for pair in [(torch.zeros(4), 0)]), "read only once.*pass the generator function"),
        (OneShot(), "can be read only once"),
        (Pairs(lambda i: torch.zeros(4)), "expected batches of .*a tensor of shape"),
        (Pairs(lambda i: (torch.zeros(4), 0, 0)), "expected batches of .*a list of 3"),
        (Pairs(lambda i: ("a", "b")), "expected batches of"),
        (Pairs(lambda i: 1 / 0), "reading two examples raised ZeroDivisionError"),
        (Pairs(lambda i: (torch.zeros(1 + i), 0)), "collating.*RuntimeError.*differ in size: pad"),
        (Pairs(lambda i: (torch.zeros(4), 0), count=1), "1 example cannot be split"),
        (DataLoader([(0, 0)] * 9, sampler=[0, 1]), "a custom sampler"),
        (DataLoader([(0, 0)] * 9, batch_size=None), "yields ready-made batches"),
        (lambda: READ_ONCE, "pass the generator function itself"),
        (Pairs(lambda i: ([1, 2], 0)), "the input is a Python list of numbers.*with_format"),
        (Pairs(lambda i: {"ids": [[1], [2]], "y": 0}), "'ids' is a Python list of numbers"),
        (Pairs(lambda i: {"ids": [0] * (i + 1), "y": 0}), "differ in size: pad or cut"),
        (Pairs(lambda i: (torch.zeros(1 + (i > 9)), 0), count=99), "differ in size: pad or cut"),
        (Pairs(lambda i: (torch.zeros(4), None)), "the target is None"),
        (Pairs(lambda i: "some text"), "it is text: tokenise it"),
        (Pairs(lambda i: (np.array(["a"]), 0)), "TypeError"),
    ],
)
def test_faults_of_data_are_reported(data, message):
    with pytest.raises(ArgumentError, match=f"(?s)^dataset: .*{message}"):
        open_source(data)


def test_faults_of_streams_are_reported(stream):
    with pytest.raises(ArgumentError, match="dataset: it is empty"):
        open_source(stream(0))
    with pytest.raises(ArgumentError, match="1 example cannot be split"):
        open_source(stream(1))


def test_faults_of_both_data_sets_come_together(numbered):
    with pytest.raises(ArgumentError) as caught:
        open_source([], 3)
    assert [text.split(":")[0] for text in caught.value.problems] == ["eval_dataset", "dataset"]
    with pytest.raises(ArgumentError, match="must have the same structure"):
        open_source(numbered(10), Pairs(lambda i: {"x": torch.zeros(4), "labels": 0}))


@pytest.mark.parametrize(
    ("example", "unit", "tokens"),
    [
        (lambda i: (torch.zeros(7).long(), torch.zeros(7).long()), "tokens", 7),
        (lambda i: (torch.zeros(3, 8, 8), i % 10), "examples", 1),
        (lambda i: (torch.zeros(4), torch.zeros(4)), "examples", 1),
        (lambda i: (torch.zeros(3, 4, 5), torch.zeros(4, 5).long()), "tokens", 20),
        (lambda i: {"input_ids": torch.zeros(9).long()}, "tokens", 9),
        (lambda i: {"input_ids": torch.zeros(9).long(), "labels": i % 2}, "examples", 1),
    ],
)
def test_d_counts_tokens_where_a_target_holds_many_labels(example, unit, tokens):
    source = open_source(Pairs(example))
    assert (source.unit, source.tokens_per_example) == (unit, tokens)
    assert source.num_tokens == 38 * tokens


def test_examples_of_any_mapping_are_counted():
    batch = UserDict({"scale": torch.tensor(1.0), "input_ids": torch.zeros(5, 9).long()})
    assert count_examples(batch) == count_examples(dict(batch)) == 5
    assert count_examples((torch.zeros(6, 2), torch.zeros(6))) == 6


def test_equal_data_have_equal_fingerprints_and_others_do_not(classes):
    x, y = classes.tensors
    prints = [
        open_source(data).fingerprint
        for data in (
            TensorDataset(x, y),
            TensorDataset(x.clone(), y.clone()),
            TensorDataset(x + 1, y),
            TensorDataset(x[:-1], y[:-1]),
            TensorDataset(x, y.flip(0)),
        )
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4
    assert open_source(classes).fingerprint != open_source(classes, classes).fingerprint


def test_augmenting_data_keep_their_fingerprint(classes):
    x, y = classes.tensors
    own = torch.Generator()
    own.seed()

    def augmented(shift):
        return Pairs(lambda i: (x[i] + torch.randn(4, generator=own), y[i] + shift), 200)

    def flipped():  # half of the readings agree by chance
        return Pairs(lambda i: (x[i] * (2 * torch.randint(2, (), generator=own) - 1), y[i]), 200)

    def cropped():
        return Pairs(lambda i: (x[i][torch.randint(3, (), generator=own) :], y[i]), 200)

    def fingerprint(data):
        return open_source(DataLoader(data, collate_fn=lambda e: (x[:2], y[:2]))).fingerprint

    assert fingerprint(augmented(0)) == fingerprint(augmented(0)) != fingerprint(augmented(1))
    assert fingerprint(flipped()) == fingerprint(flipped())
    assert fingerprint(cropped()) == fingerprint(cropped())


def test_opening_leaves_the_callers_generators_alone(classes):
    x, y = classes.tensors
    before = torch.random.get_rng_state()
    open_source(Pairs(lambda i: (x[i] + torch.randn(4), y[i])))
    assert torch.equal(torch.random.get_rng_state(), before)
