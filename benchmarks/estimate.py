"""Does the demo take as long as `SweepPlan.estimate` predicts?

Estimates the demo's plan, runs it in a new store, estimates again, and compares with the training
time of all runs (an estimate also includes start-up and evaluation). The times depend on what else
the machine does, so its load is printed too:

    python benchmarks/estimate.py [workers]
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

import flops_fit
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.examples.text import stdlib_text


def main(workers: int = 2) -> None:
    demo: dict[str, Any] = {
        "model_cls": GPT,
        "model_size_param": "d_model",
        "model_kwargs": {"n_layer": 2},
        "dataset": stdlib_text("train"),
        "eval_dataset": stdlib_text("eval"),
        "loss_fn": next_token_loss,
        "compute_budgets": [9e9, 2e10, 4.2e10, 9e10],
        "recipe": flops_fit.Recipe(eval_examples=512),
    }
    plan = flops_fit.plan_sweep(**demo)
    before = _said("before", plan, workers)
    with tempfile.TemporaryDirectory() as folder:
        result = flops_fit.find_optimal(
            **demo, extend=False, workers=workers, tracking_uri=f"sqlite:///{folder}/mlflow.db"
        )
    after = _said("after", plan, workers)
    trained = float(result.runs["wall_time_s"].sum())
    first, last = (told.device_seconds / trained for told in (before, after))
    print(f"training took {trained:.0f} s on all workers; foretold {first:.2f} and {last:.2f}")


def _said(when: str, plan: flops_fit.SweepPlan, workers: int) -> Any:
    estimate = plan.estimate(devices=workers)
    print(f"{when}, load {os.getloadavg()[0]:.1f}: {estimate!r}", flush=True)
    return estimate


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
