"""Fit existing runs: `fit()` on a CSV file, without torch, MLflow or a sweep.

New in this example: nothing trains. `runs.csv`, next to this script, has the 28 runs of
`gpt_stdlib.py`. A file of your own needs columns N, D and loss, and C in FLOPs unless C = 6 N D.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import flops_fit
from flops_fit.examples.show import show

RUNS = Path(__file__).with_name("runs.csv")


def main(argv: Sequence[str] | None = None) -> flops_fit.Result:
    """Fit the runs of a file, print the result, and predict ten times the largest budget."""
    parser = argparse.ArgumentParser(description="Fit the runs of a CSV file")
    parser.add_argument(
        "runs", nargs="?", default=RUNS, help="default: the one next to this script"
    )
    args = parser.parse_args(argv)
    try:
        result = flops_fit.fit(args.runs)
    except flops_fit.FlopsFitError as error:
        sys.exit(str(error))
    show(result)
    print(f"\n{result.predict(10 * result.largest_budget)}")
    return result


if __name__ == "__main__":
    main()
