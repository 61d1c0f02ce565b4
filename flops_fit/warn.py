"""Warnings that point at the user's line, however deep in this package they are issued."""

from __future__ import annotations

import os
import sys
import warnings
from types import FrameType

from flops_fit.errors import FlopsFitWarning

_PACKAGE_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep


def warn_user(message: str) -> None:
    """Issue a `FlopsFitWarning` that names the line which called into this package.

    A fixed `stacklevel` breaks whenever a call is moved. `skip_file_prefixes` needs Python 3.12,
    and would stop at a library between two of our frames, as Optuna is while a trial trains.

    Args:
        message: What happened, and what the call does about it.
    """
    frame = _calling_frame()
    warnings.warn_explicit(
        message,
        FlopsFitWarning,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__", "<unknown>"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _calling_frame() -> FrameType:
    """The caller of the outermost frame of this package; that frame itself in a thread of ours."""
    frame: FrameType | None = sys._getframe(1)
    assert frame is not None
    caller = frame
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE_FOLDER):
            caller = frame.f_back or frame
        frame = frame.f_back
    return caller
