"""Silence for what MLflow, Alembic and Optuna log of their own workings."""

from __future__ import annotations

import logging
import os

from flops_fit.runtime.signals import stop_at_boundary

_LEVELS = {
    "optuna": logging.ERROR,
    "alembic": logging.WARNING,
    "mlflow.store.tracking": logging.WARNING,
    "mlflow.store.db.utils": logging.CRITICAL,  # its errors are raised too, and reworded then
}


def quieten() -> None:
    """Silence the libraries of the stores, in this process; the public calls undo it at their end.

    Ctrl-C inside `setLevel` would leave logging's lock held for good, so it waits.
    """
    # MLflow would print two lines for every run that ends.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    loggers = {logging.getLogger(name): level for name, level in _LEVELS.items()}
    if all(logger.level == level for logger, level in loggers.items()):
        return
    with stop_at_boundary() as stop:
        for logger, level in loggers.items():
            logger.setLevel(level)
    if stop:
        raise stop.exception()
