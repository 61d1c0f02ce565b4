"""Old objects are left alone within, and new garbage is collected all the same."""

import gc
import weakref

import pytest

from flops_fit.runtime.gc_freeze import frozen_gc


class Knot:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def nothing_frozen():
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_only_new_objects_are_looked_at_and_their_garbage_goes():
    with frozen_gc():
        old = gc.get_freeze_count()
        assert old > 1000
        assert len(gc.get_objects()) < old / 10
        knot = Knot()
        gone = weakref.ref(knot)
        del knot
        gc.collect()
        assert gone() is None
    assert gc.get_freeze_count() == 0
    assert len(gc.get_objects()) > old / 2


def test_a_process_that_froze_its_own_objects_keeps_them_frozen():
    gc.freeze()
    with frozen_gc():
        pass
    assert gc.get_freeze_count() > 0
