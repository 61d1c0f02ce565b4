"""Type aliases and constants that all of `laws` shares."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Whether residuals are taken of ln L ("log") or of L ("linear").
Space = Literal["log", "linear"]

NAN = float("nan")

# The standard deviation of a normal distribution over its median absolute deviation.
MAD_TO_STD = 1.4826
