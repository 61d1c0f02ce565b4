import numpy as np
import pandas as pd
import pytest
from checked import severities
from tables import isoflop_table

from flops_fit.errors import FitError
from flops_fit.result import fit

TABLE = isoflop_table()


def pooled(column, other, size=35):
    """Runs of two conditions; those of the second follow another law."""
    one, two = TABLE.assign(**{column: "a"}), isoflop_table(1, **other).head(size)
    return pd.concat([one, two.assign(**{column: "b"})], ignore_index=True)


@pytest.mark.parametrize(
    ("column", "other"),
    [("dataset", {"E": 1.9}), ("tokenizer", {"A": 600.0}), ("optimizer", {"beta": 0.36})],
)
def test_conditions_with_laws_of_their_own_are_refused(column, other):
    table = pooled(column, other)
    found = fit(table, num_draws=100)
    assert found.checks[0].code == "pooled"
    assert f"'{column}' explains" in found.checks[0].message
    with pytest.raises(FitError, match=f"by='{column}'"):
        found.predict(1e22)


def test_a_small_part_of_other_runs_is_named():
    assert severities(pooled("data", {"E": 2.0}, size=8))["pooled"] in ("warn", "refuse")


@pytest.mark.parametrize("seed", range(3))
def test_harmless_columns_are_not(seed):
    rng = np.random.default_rng(seed)
    table = isoflop_table(seed).assign(
        host=rng.choice(list("abc"), 35),
        kind=rng.choice(["x", "y"], 35),
        fused=rng.random(35) < 0.5,
        shard=np.arange(35) % 5,
        n_layer=lambda t: (2 * np.log(t["N"])).round(),
        outlier=lambda t: t["loss"] > t["loss"].median(),
        gpu=pd.Categorical(rng.choice(["A100", "H100"], 35)),
    )
    assert not {"pooled", "confounded"} & severities(table).keys()


def test_a_condition_that_changes_with_compute():
    table = TABLE.assign(tokenizer=np.where(TABLE["C"] > 5e18, "bpe", "bytes"))
    assert severities(table)["confounded"] == "warn"
    assert "confounded" not in severities(TABLE.assign(stage=np.where(TABLE["C"] > 5e18, 2, 1)))
