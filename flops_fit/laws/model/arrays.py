"""Type aliases and constants that all of `laws` shares."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Whether residuals are taken of ln L ("log") or of L ("linear").
Space = Literal["log", "linear"]

NAN = float("nan")

# A law vector is (E, ln A, ln B, alpha, beta, gamma). Where constants of repeated data were fitted,
# 1 / R_D*, or 1 / R_D* and 1 / R_N*, follow.
NUM_PARAMETERS = 6
GAMMA = 5
FADING, PARAMS_FADING = 6, 7

# The standard deviation of a normal distribution over its median absolute deviation.
MAD_TO_STD = 1.4826


def columns(laws: Array) -> tuple[Array, ...]:
    """E, ln A, ln B, alpha, beta and gamma of law vectors (S, p), shape (S, 1) each."""
    return tuple(laws[:, j : j + 1] for j in range(NUM_PARAMETERS))
