"""Public tables beside this repository, or where FLOPS_FIT_SHARED_DATA says."""

import os
from pathlib import Path

import pandas as pd
import pytest

SHARED = Path(
    os.environ.get(
        "FLOPS_FIT_SHARED_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"
    )
)


def read_shared(name):
    """A table; the test is skipped where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"shared data absent: {path} (set FLOPS_FIT_SHARED_DATA)")
    return pd.read_csv(path)
