"""The sweep of `flops-fit demo`: the one of examples/feedforward_stdlib.py; runs are shared."""

from __future__ import annotations

import flops_fit
from flops_fit.cli.results import exit_code
from flops_fit.examples.feedforward import FeedForwardLM
from flops_fit.examples.gpt import next_token_loss
from flops_fit.examples.show import show
from flops_fit.examples.text import stdlib_text

BUDGETS = [2e10, 6e10, 2e11, 6e11]  # FLOPs


def run_demo(tracking_uri: str | None, workers: int | str) -> int:
    """Run the sweep, print the result, and return the exit code."""
    result = flops_fit.find_optimal(
        model_cls=FeedForwardLM,
        model_size_param="d_model",
        dataset=stdlib_text("train"),
        eval_dataset=stdlib_text("eval"),
        loss_fn=next_token_loss,
        compute_budgets=BUDGETS,
        recipe=flops_fit.Recipe(batch_size="deepseek", eval_examples=512),
        name="feedforward-stdlib",
        tracking_uri=tracking_uri,
        workers=workers,
    )
    show(result)
    return exit_code(result, BUDGETS)
