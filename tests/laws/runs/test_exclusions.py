import numpy as np
import pandas as pd
import pytest

from flops_fit.result import fit


def test_a_loss_far_above_its_lowest_has_diverged(sound):
    runs = sound.assign(best_loss=sound["loss"])
    runs.loc[3, "best_loss"] = sound.loc[3, "loss"] / 1.3
    result = fit(runs)
    assert result.runs.loc[3, "excluded"].startswith("diverged")
    assert (result.runs["excluded"] != "").sum() == 1


def test_with_all_learning_rates_tried_the_best_of_each_size_counts(sound):
    def lost(multiplier):
        """Losses with a best rate that is higher for small models than for large ones."""
        off = np.log2(multiplier) + np.sign(np.log(sound["num_params"] / 1e7))
        return sound.assign(lr_multiplier=multiplier, loss=sound["loss"] * (1 + 0.01 * off**2))

    result = fit(pd.concat([lost(m) for m in (0.5, 1.0, 2.0)], ignore_index=True))
    assert (result.runs["excluded"] == "another learning rate did better").sum() == 2 * len(sound)
    assert result.law.alpha == pytest.approx(fit(sound).law.alpha, abs=1e-6)
