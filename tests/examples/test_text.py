import numpy as np
import pytest
import torch

from flops_fit.examples.text import TextWindows, stdlib_bytes, stdlib_text


@pytest.mark.parametrize(("length", "windows"), [(0, 0), (1, 0), (8, 0), (9, 1), (100, 12)])
def test_windows_are_whole_and_targets_one_step_on(length, windows):
    data = (np.arange(length) % 256).astype(np.uint8)
    text = TextWindows(data, context=8)
    assert len(text) == windows
    for i in range(windows):
        inputs, targets = text[i]
        assert inputs.tolist() == data[8 * i : 8 * i + 8].tolist()
        assert targets.tolist() == data[8 * i + 1 : 8 * i + 9].tolist()
        assert inputs.dtype == targets.dtype == torch.int64


def test_a_batch_at_once_is_the_same():
    text = TextWindows((np.arange(1000) % 251).astype(np.uint8), context=8)
    for (x, y), (one, two) in zip(
        text.__getitems__([5, 0, 17]), [text[5], text[0], text[17]], strict=True
    ):
        assert torch.equal(x, one)
        assert torch.equal(y, two)


def test_the_standard_library_is_real_text_split_without_overlap():
    train, held_out = stdlib_text("train"), stdlib_text("eval")
    total = len(stdlib_bytes())
    assert total > 5_000_000
    assert 128 * (len(train) + len(held_out)) == pytest.approx(total, abs=256)
    assert 0.03 < len(held_out) / (len(train) + len(held_out)) < 0.07
    inputs = bytes([*held_out[0][0].tolist(), held_out[0][1][-1].item()])
    assert stdlib_bytes()[19 << 16 :][:129].tobytes() == inputs  # the twentieth block
    assert stdlib_bytes()[:128].tolist() == train[0][0].tolist()


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="expected 'train' or 'eval', got 'test'"):
        stdlib_text("test")
