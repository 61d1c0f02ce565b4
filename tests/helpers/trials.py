"""A trial and a recipe that are quick to train."""

from flops_fit import Recipe
from flops_fit.records import Trial

RECIPE = Recipe(learning_rate=0.02, pilot=False)


def a_trial(steps=20, batch=8, size=8, trial_id="00000000000000ab", rate=0.02):
    tokens = steps * batch
    return Trial(trial_id, 1e6, size, 0, 67, tokens, 100.0 * tokens, steps, batch, rate, 0)
