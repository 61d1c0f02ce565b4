"""The idle tail of a sweep: how long workers wait for the last trial, by the order of the trials.

The demo's trials are given the seconds that `SweepPlan.estimate` measures here for each, or with
`--flops` one second for the FLOPs of the smallest, and are handed out in turn to the first worker
that is free: as they are planned, then the longest first.

    python benchmarks/order.py [--flops]
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Sequence

import flops_fit
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.examples.text import stdlib_text

WORKERS = (2, 4, 8, 16)
BUDGETS = {"demo, 4 budgets": [9e9, 2e10, 4.2e10, 9e10], "two decades": [9e8, 9e9, 9e10]}


def tail(seconds: Sequence[float], workers: int) -> tuple[float, float]:
    """Seconds until the last trial ends, and share of the workers' time until then spent idle."""
    free_at = [0.0] * workers
    for trial_s in seconds:
        heapq.heapreplace(free_at, free_at[0] + trial_s)
    end = max(free_at)
    return end, 1 - sum(seconds) / (workers * end)


def main(by_flops: bool) -> None:
    print("| sweep | workers | ends at, as planned | longest first | idle, as planned | then |")
    print("|---|---|---|---|---|---|")
    for name, budgets in BUDGETS.items():
        plan = flops_fit.plan_sweep(
            GPT, "d_model", {"n_layer": 2}, stdlib_text("train"), next_token_loss, budgets,
            eval_dataset=stdlib_text("eval"),
            recipe=flops_fit.Recipe(eval_examples=512, pilot=False),
        )  # fmt: skip
        trials = plan.trials
        if by_flops:
            seconds = [trial.flops / trials[0].flops for trial in trials]
        else:
            seconds = plan.estimate().table["seconds"].tolist()
        longest_first = sorted(range(len(trials)), key=lambda n: trials[n].length, reverse=True)
        for workers in WORKERS:
            before, idle_before = tail(seconds, workers)
            after, idle_after = tail([seconds[n] for n in longest_first], workers)
            print(
                f"| {name}, {len(trials)} trials | {workers} | {before:.0f} s | {after:.0f} s "
                f"| {idle_before:.0%} | {idle_after:.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main("--flops" in sys.argv[1:])
