"""Every trial on all GPUs together, data-parallel.

    torchrun --nproc-per-node 8 examples/multi_gpu.py

New in this example: only the launch. The call is that of `gpt_stdlib.py`, with larger budgets. Rank
0 claims, records and prints, and each rank trains on its share of every batch. Losses equal those
of one process up to rounding. If each trial fits on one GPU, `--workers auto` without torchrun
trains one trial per GPU at the same time, which is faster.
"""

import os
from collections.abc import Sequence

import flops_fit
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.examples.options import sweep_options
from flops_fit.examples.show import show
from flops_fit.examples.text import stdlib_text

BUDGETS = [1e13, 3e13, 1e14, 3e14]  # FLOPs


def main(argv: Sequence[str] | None = None) -> flops_fit.Result:
    """Run the sweep; rank 0 prints the result."""
    parser = sweep_options("Trials trained data-parallel", BUDGETS, eval_examples=512)
    parser.add_argument("--precision", default="no", help="no, bf16 or fp16")
    parser.set_defaults(workers=1)  # the only value that torchrun allows
    args = parser.parse_args(argv)
    result = flops_fit.find_optimal(
        model_cls=GPT,
        model_size_param="d_model",
        model_kwargs={"n_layer": 2, "positions": "rotary"},
        dataset=stdlib_text("train"),
        eval_dataset=stdlib_text("eval"),
        loss_fn=next_token_loss,
        compute_budgets=args.budgets,
        sizes=args.sizes,
        recipe=flops_fit.Recipe(
            learning_rate=args.lr,
            batch_size=args.batch,
            eval_examples=args.eval_examples,
            precision=args.precision,
        ),
        name="gpt-data-parallel",
        workers=args.workers,
    )
    if os.environ.get("RANK", "0") == "0":
        show(result)
    return result


if __name__ == "__main__":
    main()
