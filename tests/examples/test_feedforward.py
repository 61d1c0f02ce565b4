import math

import pytest
import torch

from flops_fit.examples.feedforward import FeedForwardLM
from flops_fit.examples.gpt import next_token_loss


def text(batch=2, time=24):
    return torch.randint(256, (batch, time), generator=torch.Generator().manual_seed(0))


def test_parameters_are_counted():
    d, reach = 8, 4
    model = FeedForwardLM(d, reach=reach)
    hidden = 4 * d
    expected = 256 * d + (reach * d + 1) * hidden + (hidden + 1) * 256
    assert model.num_params() == expected


def test_a_token_sees_the_reach_before_it_and_no_more():
    model, tokens, changed = FeedForwardLM(16, reach=4), text(), 9
    with torch.no_grad():
        before = model(tokens)
        tokens[:, changed] = (tokens[:, changed] + 1) % 256
        differ = (model(tokens) - before).abs().amax(dim=(0, 2)) > 1e-6
    assert differ.nonzero().flatten().tolist() == [9, 10, 11, 12]


def test_loss_begins_near_that_of_knowing_nothing():
    torch.manual_seed(0)
    tokens = text()
    loss = next_token_loss(FeedForwardLM(64)(tokens), tokens.roll(-1, 1))
    assert loss.item() == pytest.approx(math.log(256), abs=0.4)


def test_every_parameter_learns():
    torch.manual_seed(0)
    model, tokens = FeedForwardLM(16), text()
    next_token_loss(model(tokens), tokens.roll(-1, 1)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
