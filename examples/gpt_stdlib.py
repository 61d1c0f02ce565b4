"""The five lines, on real text that every machine has: the source of Python's standard library.

Trains 28 byte-level GPTs over a decade of compute, fits the laws and prints the table. Run it again
and nothing is trained twice.
"""

from collections.abc import Sequence

import flops_fit
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.examples.show import show
from flops_fit.examples.text import stdlib_text

BUDGETS = [9e9, 2e10, 4.2e10, 9e10]  # FLOPs


def main(
    budgets: Sequence[float] = BUDGETS,
    sizes: Sequence[int] | None = None,
    workers: int | str = "auto",
) -> flops_fit.Result:
    """Run the sweep and print what it found."""
    result = flops_fit.find_optimal(
        model_cls=GPT,
        model_size_param="d_model",
        model_kwargs={"n_layer": 2},
        dataset=stdlib_text("train"),
        eval_dataset=stdlib_text("eval"),
        loss_fn=next_token_loss,
        compute_budgets=budgets,
        sizes=sizes,
        recipe=flops_fit.Recipe(eval_examples=512),
        name="gpt-stdlib",
        workers=workers,
    )
    show(result)
    return result


if __name__ == "__main__":
    main()
