import math

import pytest
import torch

from flops_fit.examples.gpt import GPT, next_token_loss


def text(batch=2, time=16, vocab=256):
    return torch.randint(vocab, (batch, time), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_counted_once(tied):
    d, layers, vocab, context = 32, 3, 100, 16
    model = GPT(d, n_layer=layers, vocab_size=vocab, context=context, tie_weights=tied)
    body = layers * (12 * d * d + 4 * d) + 2 * d
    tables = (vocab + context) * d
    head = 0 if tied else vocab * d
    assert model.num_params() == body + tables + head
    assert model.num_params(embeddings=False) == body + vocab * d


def test_no_token_sees_a_later_one():
    model, tokens = GPT(32, context=16), text()
    with torch.no_grad():
        for parameter in model.parameters():  # blocks begin as identity: stir them first
            parameter.normal_(std=0.1)
        before = model(tokens)
        tokens[:, 9:] = (tokens[:, 9:] + 1) % 256
        after = model(tokens)
    assert torch.allclose(before[:, :9], after[:, :9], atol=1e-6)
    assert not torch.allclose(before[:, 9:], after[:, 9:], atol=1e-2)


def test_loss_begins_near_that_of_knowing_nothing():
    torch.manual_seed(0)
    tokens = text()
    loss = next_token_loss(GPT(64)(tokens), tokens.roll(-1, 1))
    assert loss.item() == pytest.approx(math.log(256), abs=0.4)


@pytest.mark.parametrize("size", [{"d_model": 40, "n_head": 3}, {"d_model": 56}, {"d_model": 0}])
def test_widths_that_heads_do_not_divide_are_refused(size):
    with pytest.raises(ValueError, match=r"does not divide into .* heads"):
        GPT(**size)


def test_sized_by_width_or_by_depth():
    widths = [GPT(d).num_params() for d in (8, 16, 32, 48)]
    depths = [GPT(16, n_layer=n).num_params() for n in (1, 2, 3, 4)]
    assert widths == sorted(set(widths))
    assert depths[1] - depths[0] == depths[3] - depths[2] == 12 * 16 * 16 + 4 * 16


def test_every_parameter_learns():
    torch.manual_seed(0)
    model, tokens = GPT(32, context=16), text()
    with torch.no_grad():
        for block in model.blocks:
            block.project.weight.normal_(std=0.1)
            block.down.weight.normal_(std=0.1)
    next_token_loss(model(tokens), tokens.roll(-1, 1)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
