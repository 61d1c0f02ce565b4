import math

import pytest
import torch

from flops_fit.examples.gpt import GPT, next_token_loss, rotate


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


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_no_token_sees_a_later_one(positions):
    model, tokens = GPT(32, context=16, positions=positions), text()
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


def test_rotary_positions_take_no_parameters_and_tell_order():
    model, tokens = GPT(32, n_layer=1, positions="rotary"), text()
    assert model.num_params() == GPT(32, n_layer=1, context=0).num_params()
    assert model.num_params(embeddings=False) == model.num_params() - 256 * 32
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
        last = model(tokens)[:, -1]
        tokens[:, [3, 4]] = tokens[:, [4, 3]]
        assert not torch.allclose(last, model(tokens)[:, -1], atol=1e-3)


def test_scores_of_rotary_positions_depend_on_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).double()
    angles = torch.arange(50)[:, None] * 1e4 ** (-torch.arange(0, 8, 2) / 8)
    turned_q, turned_k = (rotate(x.expand(1, 1, 50, 8), angles)[0, 0] for x in (q, k))
    scores = turned_q @ turned_k.T
    for distance in (1, 7):
        along = scores.diagonal(distance)
        assert torch.allclose(along, along[0].expand(len(along)), atol=1e-5)
    assert scores.diagonal(1)[0].item() != pytest.approx(scores.diagonal(7)[0].item(), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 6, "n_head": 2, "positions": "rotary"}, "heads of 3 do not divide into pairs"),
        ({"d_model": 8, "positions": "none"}, "expected 'learned' or 'rotary', got 'none'"),
    ],
)
def test_positions_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GPT(**options)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_in_bf16_the_loss_is_nearly_the_same(positions):
    torch.manual_seed(0)
    model, tokens = GPT(32, context=16, positions=positions), text()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
        exact = next_token_loss(model(tokens), tokens.roll(-1, 1))
        with torch.autocast("cpu", torch.bfloat16):
            rough = next_token_loss(model(tokens), tokens.roll(-1, 1))
        whole = next_token_loss(model.bfloat16()(tokens), tokens.roll(-1, 1))
    assert rough.item() == pytest.approx(exact.item(), rel=0.01)
    assert whole.item() == pytest.approx(exact.item(), rel=0.02)
