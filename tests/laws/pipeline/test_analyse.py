import numpy as np
import pandas as pd
import pytest
from checked import severities

from flops_fit.result import fit


@pytest.mark.slow
def test_training_curves(sound, small):
    runs = sound.assign(trial_id=[f"t{i}" for i in range(35)])
    points = []
    for _, run in runs.iterrows():
        D = run["num_tokens"] * np.linspace(0.3, 1, 6)
        points.append(
            pd.DataFrame(
                {
                    "trial_id": run["trial_id"],
                    "num_tokens": D,
                    "ended": D == D[-1],
                    "loss": small.loss(run["num_params"], D),
                }
            )
        )
    curves = pd.concat(points)
    checks = severities(runs, curves=curves, unfinished_curves=True)
    assert checks["unfinished-curves"] == "warn"
    result = fit(runs, curves=curves, unfinished_curves=True)
    assert len(result.findings.envelope) > 4
    assert "unfinished-curves" not in severities(runs, curves=curves)
    assert severities(runs, curves=curves.assign(ended=False))["no-envelope"] == "warn"
    assert severities(sound, curves=curves)["no-envelope"] == "warn"
    assert "no-envelope" not in severities(runs, curves=curves)
    assert "no-envelope" not in severities(runs)


def test_assumed_compute_is_noted(sound):
    assert severities(sound.drop(columns=["flops", "compute_budget"]))["assumed"] == "note"
    assert "assumed" not in severities(sound)
