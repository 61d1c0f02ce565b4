import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from flops_fit.examples.images import CIFAR_MEAN, Shapes, accuracy, cifar10, labelled_images


def first(stream, count):
    return [example for example, _ in zip(stream, range(count), strict=False)]


def test_a_shape_is_a_function_of_its_index_alone():
    shapes = Shapes("train")
    images, labels = shapes.draw(np.array([700, 3, 700]))
    stream = first(shapes, 701)
    assert torch.equal(images[0], images[2])
    assert torch.equal(images[0], stream[700][0])
    assert torch.equal(images[1], stream[3][0])
    assert labels.tolist() == [stream[700][1], stream[3][1], stream[700][1]]
    assert (images.dtype, images.shape) == (torch.float32, (3, 3, 16, 16))


def test_kinds_are_equally_frequent_and_held_out_shapes_others():
    _, labels = Shapes("train").draw(np.arange(20_000))
    counts = labels.bincount(minlength=10)
    assert ((counts - 2000).abs() < 4 * 1800**0.5).all()  # four standard deviations
    assert not torch.equal(next(iter(Shapes("train")))[0], next(iter(Shapes("eval")))[0])


def test_without_noise_a_disc_is_bright_on_dark_and_smooth():
    images, labels = Shapes("train", size=32, noise=0.0).draw(np.arange(400))
    for image in images[labels == 0]:
        ground = image[:, 0, 0]
        assert (ground <= 0).all()
        inside = (image - ground[:, None, None]).sum(0)
        inside = inside / inside.max()
        rows = inside.sum(1)
        radius = rows[rows > 0].numel() / 2
        assert inside.sum() == pytest.approx(np.pi * radius**2, rel=0.2)


def test_a_linear_reading_of_pixels_is_no_way_to_tell_them_all_apart():
    x, y = Shapes("train").draw(np.arange(4000))
    weights = torch.linalg.lstsq(x.flatten(1), torch.nn.functional.one_hot(y, 10).float()).solution
    x, y = Shapes("eval").draw(np.arange(10_000, 12_000))
    assert 0.12 < accuracy(x.flatten(1) @ weights, y) < 0.5


@pytest.mark.integration  # needs the extra "hub"
def test_cifar10_from_files_of_the_hubs_layout(tmp_path):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (7, 32, 32, 3), np.uint8)
    rows = []
    for k, image in enumerate(pixels):
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        rows.append({"img": {"bytes": png.getvalue(), "path": f"{k}.png"}, "label": k})
    (tmp_path / "plain_text").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "plain_text" / "test-00000-of-00001.parquet")
    held_out = cifar10("eval", tmp_path)
    assert (len(held_out), held_out.size) == (7, 32)
    image, label = held_out[3]
    assert label == 3
    assert image.shape == (3, 32, 32)
    red = (pixels[3, 5, 9, 0] / 255 - CIFAR_MEAN[0]) / 0.247
    assert image[0, 5, 9].item() == pytest.approx(red, abs=1e-5)
    several = held_out.__getitems__([5, 3])
    assert torch.equal(several[1][0], image)


def test_an_unknown_split_is_refused():
    for source in ("synthetic", "hub"):
        with pytest.raises(ValueError, match="expected 'train' or 'eval', got 'test'"):
            labelled_images("test", source)
