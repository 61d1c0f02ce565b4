"""GPTs on the source code of Python's standard library.

New in this example: the model, 28 byte-level GPTs over a decade of compute. Chance decides at which
step so small a GPT learns to use attention. Its losses are noisy, and the checks of the result say
so. The batch follows a rule here, so that all is done in three minutes: the best batches of so
small models hold a single example, and steps of one example are slow. `--batch auto` finds them
too, in six minutes: the best models are then nearly twice as large.
"""

from collections.abc import Sequence

import flops_fit
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.examples.options import sweep_options
from flops_fit.examples.show import show
from flops_fit.examples.text import stdlib_text

BUDGETS = [9e9, 2e10, 4.2e10, 9e10]  # FLOPs


def main(argv: Sequence[str] | None = None) -> flops_fit.Result:
    """Run the sweep and print the result."""
    parser = sweep_options("GPTs on Python's own source", BUDGETS, eval_examples=512)
    parser.set_defaults(batch="deepseek")
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
            learning_rate=args.lr, batch_size=args.batch, eval_examples=args.eval_examples
        ),
        name="gpt-stdlib",
        workers=args.workers,
    )
    show(result)
    return result


if __name__ == "__main__":
    main()
