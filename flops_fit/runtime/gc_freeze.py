"""Garbage collection that does not walk through every imported library after every trial."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def frozen_gc() -> Iterator[None]:
    """Within, collections look only at objects made since; a process that froze its own keeps them.

    A full collection after each trial returns the memory of models that refer to themselves. With
    torch and MLflow imported it takes .1 to .3 s, nearly all of it on objects that stay for good.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
