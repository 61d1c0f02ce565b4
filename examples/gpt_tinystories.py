"""The same GPT on data of the Hugging Face Hub: TinyStories, tokenised once and memory-mapped.

New in this example: the dataset is a function that opens it, so that each worker maps the packed
file instead of receiving a copy. The budgets suit two CPU cores; on a GPU, use larger ones:

    python examples/gpt_tinystories.py --tokenizer gpt2 --budgets 1e15 3e15 1e16 3e16 1e17

Needs `pip install 'flops-fit[hub]'`. Without a network, pass `--data DIR`, a folder with the files
of `roneneldan/TinyStories` (parquet or text, with "train" or "validation" in their names).
"""

import sys
from collections.abc import Sequence
from functools import partial

import flops_fit
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.examples.hub import HubError
from flops_fit.examples.options import sweep_options
from flops_fit.examples.show import show
from flops_fit.examples.tinystories import tinystories, tokenizer

BUDGETS = [9e9, 2e10, 4.2e10, 9e10]  # FLOPs


def main(argv: Sequence[str] | None = None) -> flops_fit.Result:
    """Run the sweep and print the result."""
    parser = sweep_options("GPT on TinyStories", BUDGETS, eval_examples=512)
    parser.add_argument("--data", metavar="DIR", help="folder of local files; default: the hub")
    parser.add_argument("--tokenizer", default="bytes", help="bytes, a tokenizer.json, or gpt2")
    parser.add_argument("--context", type=int, default=128, help="tokens per window")
    parser.add_argument("--cache", default="data", help="folder for the packed tokens")
    args = parser.parse_args(argv)
    data = (args.data, args.tokenizer, args.context, args.cache)
    try:
        tinystories("train", *data)  # tokenises the text on the first call
        vocab_size = tokenizer(args.tokenizer).vocab_size
    except HubError as error:
        sys.exit(str(error))
    result = flops_fit.find_optimal(
        model_cls=GPT,
        model_size_param="d_model",
        model_kwargs={"vocab_size": vocab_size, "context": args.context, "positions": "rotary"},
        dataset=partial(tinystories, "train", *data),
        eval_dataset=partial(tinystories, "eval", *data),
        loss_fn=next_token_loss,
        compute_budgets=args.budgets,
        sizes=args.sizes,
        recipe=flops_fit.Recipe(
            learning_rate=args.lr, batch_size=args.batch, eval_examples=args.eval_examples
        ),
        name="gpt-tinystories",
        workers=args.workers,
    )
    show(result)
    return result


if __name__ == "__main__":
    main()
