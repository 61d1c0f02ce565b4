"""A convolutional network, whose measured FLOPs are hundreds of times 6 N D.

New in this example: it prints the measured FLOPs of each size next to 6 N. Every weight of a
convolution is used at every pixel, so C = 6 N D, which is accurate to a few per cent for a language
model, is far off here. flops-fit counts the FLOPs of the forward and backward pass on the meta
device, and uses them for the plan and the fit.
"""

import sys
from collections.abc import Sequence

from torch.nn.functional import cross_entropy

import flops_fit
from flops_fit.examples.hub import HubError
from flops_fit.examples.images import accuracy, labelled_images
from flops_fit.examples.options import sweep_options
from flops_fit.examples.resnet import ResNet
from flops_fit.examples.show import show

BUDGETS = [1.5e10, 3e10, 6e10, 1.2e11]  # FLOPs


def main(argv: Sequence[str] | None = None) -> flops_fit.Result:
    """Run the sweep and print the result."""
    parser = sweep_options("ResNet on drawn shapes or on CIFAR-10", BUDGETS, eval_examples=4096)
    parser.add_argument("--data", default="synthetic", help="'synthetic', 'hub' or a folder")
    parser.set_defaults(batch=16)
    args = parser.parse_args(argv)
    try:
        train, held_out = (labelled_images(split, args.data) for split in ("train", "eval"))
    except HubError as error:
        sys.exit(str(error))
    result = flops_fit.find_optimal(
        model_cls=ResNet,
        model_size_param="width",
        model_kwargs={"n_stage": 1},
        dataset=train,
        eval_dataset=held_out,
        loss_fn=cross_entropy,
        metrics={"accuracy": accuracy},
        compute_budgets=args.budgets,
        sizes=args.sizes,
        recipe=flops_fit.Recipe(
            learning_rate=args.lr, batch_size=args.batch, eval_examples=args.eval_examples
        ),
        name="resnet",
        workers=args.workers,
    )
    show(result)
    print(f"\nMeasured FLOPs, and their ratio to 6 N:\n{measured(result)}")
    return result


def measured(result: flops_fit.Result) -> str:
    """FLOPs per image of each size, and their ratio to 6 N."""
    sizes = result.runs.drop_duplicates("size").sort_values("num_params")[["size", "num_params"]]
    spent = result.runs.drop_duplicates("size").set_index("size")
    sizes["flops_per_image"] = (spent["flops"] / spent["num_tokens"]).loc[sizes["size"]].to_numpy()
    sizes["times_6N"] = sizes["flops_per_image"] / (6 * sizes["num_params"])
    return sizes.to_string(index=False, float_format="{:.4g}".format)


if __name__ == "__main__":
    main()
