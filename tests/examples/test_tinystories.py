import numpy as np
import pandas as pd
import pytest

from flops_fit.examples.hub import HubError
from flops_fit.examples.tinystories import tinystories, tokenizer

STORIES = ["Once upon a time.", "A cat – and a dog.", "The end"]

pytestmark = pytest.mark.integration  # needs the extra "hub"


@pytest.fixture
def folder(tmp_path):
    for name in ("train", "validation"):
        pd.DataFrame({"text": STORIES}).to_parquet(tmp_path / f"{name}-00000-of-00001-abc.parquet")
    return tmp_path


def tokens_of(windows):
    inputs = [token for x, _ in windows for token in x.tolist()]
    return [*inputs, windows[len(windows) - 1][1][-1].item()]


def test_stories_are_packed_end_to_end_and_mapped(folder):
    windows = tinystories("train", folder, context=7, cache=folder / "cache")
    packed = b"".join(story.encode() + b"\0" for story in STORIES)
    assert bytes(tokens_of(windows)) == packed[: 7 * len(windows) + 1]
    assert len(windows) == (len(packed) - 1) // 7
    assert isinstance(windows._inputs.base, np.memmap)


def test_what_was_packed_is_used_again(folder):
    tinystories("eval", folder, cache=folder / "cache")
    (file,) = (folder / "cache").iterdir()
    file.write_bytes(b"x" * 300)
    windows = tinystories("eval", folder, context=10, cache=folder / "cache")
    assert set(tokens_of(windows)) == {ord("x")}


def test_word_pieces_end_their_stories_too(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator(STORIES * 10, trainer)
    pieces.save(str(folder / "tokenizer.json"))
    name = str(folder / "tokenizer.json")
    windows = tinystories("train", folder, name, context=1, cache=folder / "cache")
    wanted = [token for story in STORIES for token in (*pieces.encode(story).ids, 0)]
    assert tokens_of(windows) == wanted
    assert max(wanted) > 255  # more than bytes hold
    assert tokenizer(name).vocab_size == pieces.get_vocab_size()


def test_a_tokenizer_that_cannot_be_had_is_one_line(folder):
    (folder / "broken.json").write_text("{}")
    with pytest.raises(
        HubError, match=r"cannot be had \(\w+\); use 'bytes', or the path"
    ) as caught:
        tokenizer(str(folder / "broken.json"))
    assert "\n" not in str(caught.value)


def test_an_unknown_split_is_refused(folder):
    with pytest.raises(ValueError, match="expected 'train' or 'eval', got 'test'"):
        tinystories("test", folder)
