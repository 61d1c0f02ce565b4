import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from flops_fit.examples.resnet import ResNet
from flops_fit.examples.vit import ViT


def test_parameters_are_counted():
    d, layers = 32, 3
    model = ViT(d, n_layer=layers, image_size=16)
    body = layers * (12 * d * d + 4 * d) + 2 * d + 10 * (d + 1)
    assert model.num_params(embeddings=False) == body
    assert model.num_params() == body + (48 + 1) * d + 16 * d


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 40, "n_head": 3}, "does not divide into 3 heads"),
        ({"d_model": 16, "image_size": 18}, "18 pixels do not divide into patches of 4"),
    ],
)
def test_what_does_not_divide_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ViT(**options)


@pytest.mark.parametrize("model", [ViT(32, image_size=16), ResNet(6, n_block=2)])
def test_every_parameter_learns_from_images_also_in_bf16(model):
    torch.manual_seed(0)
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8)
    logits = model(images)
    assert cross_entropy(logits, labels).item() == pytest.approx(math.log(10), abs=1.5)
    with torch.no_grad():  # blocks begin as identity: stir them first
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        cross_entropy(model(images).float(), labels).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_patches_are_told_apart_by_place():
    model = ViT(16, image_size=16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
        images = torch.randn(1, 3, 16, 16)
        before = model(images)
        assert not torch.allclose(before, model(images.roll(4, 2)), atol=1e-3)


def test_a_stage_halves_height_and_width_and_parameters_grow_with_the_square():
    seen = []
    model = ResNet(4, n_stage=3)
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape)))
    model(torch.zeros(2, 3, 16, 16))
    assert seen == [(2, 4, 16, 16), (2, 4, 8, 8), (2, 4, 4, 4)]
    assert ResNet(64).num_params() / ResNet(32).num_params() == pytest.approx(4, rel=0.05)
