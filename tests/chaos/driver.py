"""A driver that chaos befalls: `driver.py <folder> <workers> <budgets> <tracking_uri> <storage>`.

Trains the real sweep of `sweeps` over its first so many budgets.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background

if __name__ == "__main__":
    import sweeps

    folder, workers, budgets, tracking_uri, storage = sys.argv[1:]
    sweeps.real_sweep(
        Path(folder), int(budgets), workers=int(workers),
        tracking_uri=tracking_uri, storage=storage,
    )  # fmt: skip
