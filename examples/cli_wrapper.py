"""`find_optimal` behind your own command line.

    python examples/cli_wrapper.py plan --layers 3 --budgets 2e10 4e10 8e10
    python examples/cli_wrapper.py run --layers 3 --budgets 2e10 4e10 8e10
    python examples/cli_wrapper.py predict 1e12 --layers 3

New in this example: `plan_sweep` and `find_optimal` take the same arguments, `analyze` uses only
the finished runs, and user errors become one readable line. Each depth is a separate sweep, by
name.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import flops_fit
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.examples.show import show
from flops_fit.examples.text import stdlib_text


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="How wide a GPT on Python's own source?")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, line in (("plan", "show what would train"), ("run", "train what is missing")):
        options = commands.add_parser(command, help=line)
        options.add_argument("--budgets", type=float, nargs="+", required=True, help="FLOPs")
        options.add_argument("--sizes", type=int, nargs="+", help="widths; default: planned")
        options.add_argument("--batch", type=int, help="examples per step; default: by a rule in C")
    commands.add_parser("predict", help="predict from finished runs").add_argument(
        "budget", type=float, help="FLOPs"
    )
    for options in commands.choices.values():
        options.add_argument("--layers", type=int, default=2, help="depth of every model")
    return parser.parse_args(argv)


def arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that `plan_sweep` and `find_optimal` share."""
    return {
        "model_cls": GPT,
        "model_size_param": "d_model",
        "model_kwargs": {"n_layer": args.layers},
        "dataset": stdlib_text("train"),
        "eval_dataset": stdlib_text("eval"),
        "loss_fn": next_token_loss,
        "compute_budgets": args.budgets,
        "sizes": args.sizes,
        "recipe": flops_fit.Recipe(batch_size=args.batch or "auto", eval_examples=256),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    args = parse(argv)
    name = f"gpt-{args.layers}-layers"
    try:
        if args.command == "plan":
            print(flops_fit.plan_sweep(**arguments(args)))
        elif args.command == "run":
            show(flops_fit.find_optimal(**arguments(args), name=name))
        else:
            print(flops_fit.analyze(name).predict(args.budget))
    except flops_fit.FlopsFitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
