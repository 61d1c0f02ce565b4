"""TinyStories (Eldan & Li 2023), tokenised once, packed end to end and memory-mapped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flops_fit.examples import hub
from flops_fit.examples.text import TextWindows

NAME = "roneneldan/TinyStories"
_FLUSH = 1 << 20  # tokens gathered between two writes


@dataclass(frozen=True)
class Tokenizer:
    """From text to tokens.

    Attributes:
        name: Tells it from others.
        vocab_size: Values that a token may have.
        end: The token between two stories.
        encode: From a text to its tokens.
    """

    name: str
    vocab_size: int
    end: int
    encode: Callable[[str], Sequence[int]]


def tokenizer(name: str = "bytes") -> Tokenizer:
    """A tokenizer by name.

    Args:
        name: "bytes", the path of a `tokenizer.json`, or a name on the hub, as "gpt2".

    Raises:
        HubError: If it cannot be had; says what to do.
    """
    if name == "bytes":
        return Tokenizer("bytes", 256, 0, lambda text: text.encode())
    try:
        from tokenizers import Tokenizer as Pieces

        local = Path(name).is_file()
        pieces = Pieces.from_file(name) if local else Pieces.from_pretrained(name)
    except Exception as error:
        raise hub.HubError(
            f"tokenizer {name!r} cannot be had ({type(error).__name__}); use 'bytes', or the path "
            "of its tokenizer.json, with `tokenizers` installed: pip install 'flops-fit[hub]'"
        ) from error
    end = pieces.token_to_id("<|endoftext|>")
    if end is None:
        raise hub.HubError(f"tokenizer {name!r} has no <|endoftext|>, which ends a story")
    own = hashlib.sha256(pieces.to_str().encode()).hexdigest()[:16]
    return Tokenizer(own, pieces.get_vocab_size(), end, lambda text: pieces.encode(text).ids)


def tinystories(
    split: str,
    folder: str | Path | None = None,
    tokens: str = "bytes",
    context: int = 128,
    cache: str | Path = "data",
) -> TextWindows:
    """The train or held-out stories in windows of `context` tokens.

    Args:
        split: "train" or "eval".
        folder: Where parquet or text files of the hub's layout lie; None to get them from the hub.
        tokens: Name of a `tokenizer`.
        context: Length of a window.
        cache: Folder of the packed tokens; what was packed before is used again.

    Raises:
        HubError: If the stories cannot be had; says what to do.
        ValueError: If `split` is neither of the two.
    """
    if split not in ("train", "eval"):
        raise ValueError(f"split: expected 'train' or 'eval', got {split!r}")
    rows = hub.load(NAME, "train" if split == "train" else "validation", ["text"], folder)
    pieces = tokenizer(tokens)
    key = hashlib.sha256(f"{rows._fingerprint} {pieces.name}".encode()).hexdigest()[:16]
    file = Path(cache) / f"tinystories-{split}-{key}.bin"
    kind = np.dtype(np.uint8 if pieces.vocab_size <= 1 << 8 else np.uint16)
    if pieces.vocab_size > 1 << 16:
        kind = np.dtype(np.uint32)
    if not file.exists():
        pack(hub.column(rows, "text"), pieces, file, kind)
    return TextWindows(np.memmap(file, kind, "r"), context)


def pack(texts: Iterable[str], pieces: Tokenizer, file: Path, kind: np.dtype) -> None:
    """Write the tokens of all texts, each followed by `end`; beside, then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(f".{os.getpid()}.part")
    with beside.open("wb") as out:
        waiting: list[int] = []
        for text in texts:
            waiting += [*pieces.encode(text), pieces.end]
            if len(waiting) >= _FLUSH:
                np.asarray(waiting, kind).tofile(out)
                waiting.clear()
        np.asarray(waiting, kind).tofile(out)
    beside.replace(file)
