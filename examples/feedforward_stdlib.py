"""The five lines, on text that every machine has: the source code of Python's standard library.

Trains 27 byte-level feed-forward language models (Bengio et al. 2003) over a factor of thirty in
compute, fits the laws and prints the table. Running it again trains nothing twice. A pilot finds
the learning rate. The batch follows a rule here, so that all is done in two minutes: the best
batches of so small models hold few examples, and short steps are slow. `--batch auto` finds them
too.
"""

from collections.abc import Sequence

import flops_fit
from flops_fit.examples.feedforward import FeedForwardLM
from flops_fit.examples.gpt import next_token_loss
from flops_fit.examples.options import sweep_options
from flops_fit.examples.show import show
from flops_fit.examples.text import stdlib_text

BUDGETS = [2e10, 6e10, 2e11, 6e11]  # FLOPs


def main(argv: Sequence[str] | None = None) -> flops_fit.Result:
    """Run the sweep and print the result."""
    parser = sweep_options("Byte-level models of Python's own source", BUDGETS, eval_examples=512)
    parser.set_defaults(batch="deepseek")
    args = parser.parse_args(argv)
    result = flops_fit.find_optimal(
        model_cls=FeedForwardLM,
        model_size_param="d_model",
        dataset=stdlib_text("train"),
        eval_dataset=stdlib_text("eval"),
        loss_fn=next_token_loss,
        compute_budgets=args.budgets,
        sizes=args.sizes,
        recipe=flops_fit.Recipe(
            learning_rate=args.lr, batch_size=args.batch, eval_examples=args.eval_examples
        ),
        name="feedforward-stdlib",
        workers=args.workers,
    )
    show(result)
    return result


if __name__ == "__main__":
    main()
