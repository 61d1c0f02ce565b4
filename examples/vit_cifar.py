"""Images instead of text: a vision transformer on CIFAR-10, or on drawn shapes.

New in this example: D counts examples, because an image has a single label, and the accuracy is
logged next to the loss. `--data synthetic` draws labelled shapes and needs no data. Otherwise
CIFAR-10 is read from the hub (`pip install 'flops-fit[hub]'`), or with `--data DIR` from a folder
with the parquet files of `uoft-cs/cifar10`.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from torch.nn.functional import cross_entropy

import flops_fit
from flops_fit.examples.hub import HubError
from flops_fit.examples.images import accuracy, labelled_images
from flops_fit.examples.options import sweep_options
from flops_fit.examples.show import show
from flops_fit.examples.vit import ViT

BUDGETS = {
    "synthetic": [4e9, 6e9, 1e10, 2.5e10, 6e10],
    "cifar10": [2e10, 5e10, 1.2e11, 3e11],
}  # FLOPs


def main(argv: Sequence[str] | None = None) -> flops_fit.Result:
    """Run the sweep and print the result."""
    parser = sweep_options("ViT on CIFAR-10 or on drawn shapes", [], eval_examples=4096)
    parser.add_argument("--data", default="hub", help="'synthetic', 'hub' or a folder")
    args = parser.parse_args(argv)
    kind = "synthetic" if args.data == "synthetic" else "cifar10"
    try:
        train, held_out = (labelled_images(split, args.data) for split in ("train", "eval"))
    except HubError as error:
        sys.exit(str(error))
    result = flops_fit.find_optimal(
        model_cls=ViT,
        model_size_param="d_model",
        model_kwargs={"image_size": train.size},
        dataset=train,
        eval_dataset=held_out,
        loss_fn=cross_entropy,
        metrics={"accuracy": accuracy},
        compute_budgets=args.budgets or BUDGETS[kind],
        sizes=args.sizes,
        recipe=flops_fit.Recipe(
            learning_rate=args.lr, batch_size=args.batch, eval_examples=args.eval_examples
        ),
        name=f"vit-{kind}",
        workers=args.workers,
    )
    show(result)
    print(f"\nMost accurate at each budget:\n{most_accurate(result)}")
    return result


def most_accurate(result: flops_fit.Result) -> str:
    """The run with the best held-out accuracy at each budget; MLflow has the accuracies."""
    default = f"sqlite:///{Path('mlruns/mlflow.db').absolute()}"
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", default))
    runs = result.runs[result.runs["state"] == "complete"]
    logged = [client.get_run(run_id).data.metrics["eval_accuracy"] for run_id in runs["run_id"]]
    runs = runs.assign(accuracy=logged)
    best = runs.loc[runs.groupby("compute_budget")["accuracy"].idxmax()]
    return best[["compute_budget", "size", "accuracy"]].to_string(index=False)


if __name__ == "__main__":
    main()
