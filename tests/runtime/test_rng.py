import random

import numpy as np
import pytest
import torch

from flops_fit.runtime.rng import seeded


def draw():
    return random.random(), np.random.rand(), torch.rand(()).item()


def states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_same_seed_same_numbers_whatever_ran_before(seed):
    with seeded(seed):
        first = draw()
    draw()
    with seeded(seed):
        assert draw() == first
    with seeded(seed ^ 1):
        assert not set(draw()) & set(first)


def test_callers_generators_are_left_as_they_were():
    before = states()
    with seeded(1):
        draw()
    assert states() == before
    with pytest.raises(KeyError), seeded(1):  # noqa: PT012
        draw()
        raise KeyError
    assert states() == before


def test_cuda_is_not_seeded_where_there_is_none(monkeypatch):
    """It would be seeded for the caller too, on the day on which it is initialised."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", None)
    with seeded(7):
        numbers = draw()
    monkeypatch.undo()
    with seeded(7):
        torch.manual_seed(7)
        assert draw()[2] == numbers[2]
