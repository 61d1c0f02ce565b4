"""The learning rate as a third axis: each size at half, one and two times the recipe's rate.

New in this example: `Recipe(lr_multipliers=...)`. Name and setting are those of `gpt_stdlib.py`, so
if that sweep has run, only the other rates are trained. The fits use the best rate of each size. If
the ends of the sweep prefer different rates, a single rate would have biased the exponents.
"""

from collections.abc import Sequence

import flops_fit
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.examples.options import sweep_options
from flops_fit.examples.show import show
from flops_fit.examples.text import stdlib_text

BUDGETS = [9e9, 2e10, 4.2e10, 9e10]  # FLOPs


def main(argv: Sequence[str] | None = None) -> flops_fit.Result:
    """Run the sweep, print the result and the best rate of each size."""
    parser = sweep_options("GPTs at three learning rates each", BUDGETS, eval_examples=512)
    args = parser.parse_args(argv)
    result = flops_fit.find_optimal(
        model_cls=GPT,
        model_size_param="d_model",
        model_kwargs={"n_layer": 2},
        dataset=stdlib_text("train"),
        eval_dataset=stdlib_text("eval"),
        loss_fn=next_token_loss,
        compute_budgets=args.budgets,
        sizes=args.sizes,
        recipe=flops_fit.Recipe(
            batch_size=args.batch, eval_examples=args.eval_examples, lr_multipliers=(0.5, 1, 2)
        ),
        name="gpt-stdlib",
        workers=args.workers,
    )
    show(result)
    runs = result.runs
    best = runs.loc[runs.groupby(["compute_budget", "size"])["loss"].idxmin()]
    table = best.pivot(index="compute_budget", columns="size", values="lr_multiplier")
    print(
        f"\nBest multiple of the learning rate, by budget and width:\n{table.to_string(na_rep='')}"
    )
    return result


if __name__ == "__main__":
    main()
