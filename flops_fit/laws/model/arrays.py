"""flops_fit.laws.model.arrays."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Space = Literal["log", "linear"]
