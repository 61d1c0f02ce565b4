import numpy as np
import pandas as pd

from flops_fit.laws.runs.points import Points

RUNS = pd.DataFrame({"num_params": [1, 2, 3], "num_tokens": [4, 5, 6], "loss": [3.0, 2.0, 1.0]})


def test_points_are_read_from_a_table():
    points = Points.from_runs(RUNS)
    assert len(points) == 3
    assert points.N.dtype == points.D.dtype == float
    assert points.loss.tolist() == [3.0, 2.0, 1.0]


def test_without_repetition_all_tokens_are_unique():
    points = Points.from_runs(RUNS)
    assert points.unique is None
    assert points.unique_tokens is points.D
    assert Points(points.N, points.D, points.loss, points.D / 2).unique_tokens[0] == 2.0


def test_rows_are_taken_from_every_column():
    N = np.arange(4.0)
    points = Points(N, N + 10, N + 20, N + 30, np.array(list("abcd"))).at(N > 1)
    assert points.N.tolist() == [2, 3]
    assert points.D.tolist() == [12, 13]
    assert points.loss.tolist() == [22, 23]
    assert points.unique_tokens.tolist() == [32, 33]
    assert points.clusters.tolist() == ["c", "d"]
    assert Points(N, N, N).at(np.array([0])).clusters is None
