"""Workers on a cluster: Dask on this machine; two lines change for Slurm or Ray.

New in this example: `executor=`, which takes anything with `submit()`. All workers are alike: each
claims a trial, trains it and records it, until none is waiting. Each worker builds the data itself,
with the function that it receives. Needs `pip install 'flops-fit[dask]'`.

Workers on several machines must share one store: also pass `tracking_uri="http://mlflow:5000"` and
`storage="postgresql://user:password@host/optuna"`.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

from distributed import Client, LocalCluster

import flops_fit
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.examples.options import sweep_options
from flops_fit.examples.show import show
from flops_fit.examples.text import stdlib_text

BUDGETS = [9e9, 2e10, 4.2e10, 9e10]  # FLOPs


def main(argv: Sequence[str] | None = None) -> flops_fit.Result:
    """Start a cluster on this machine, and run the sweep on it."""
    parser = sweep_options("A sweep through Dask", BUDGETS, eval_examples=512)
    parser.set_defaults(workers=2)
    args = parser.parse_args(argv)
    cluster = LocalCluster(args.workers, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        result = sweep(client.get_executor(), args)
    show(result)
    return result


# Slurm, `pip install 'flops-fit[slurm]'`:
#     executor = submitit.AutoExecutor(folder="jobs")
#     executor.update_parameters(slurm_partition="gpu", gpus_per_node=1, timeout_min=600)
# Ray, `pip install 'flops-fit[ray]'`: an object whose `submit(function, *arguments)` returns
#     remote = ray.remote(num_gpus=1)(function)
#     return remote.remote(*arguments).future()


def sweep(executor: Executor, args: argparse.Namespace) -> flops_fit.Result:
    """The sweep of `gpt_stdlib.py`, with workers started by an executor."""
    return flops_fit.find_optimal(
        model_cls=GPT,
        model_size_param="d_model",
        model_kwargs={"n_layer": 2},
        dataset=partial(stdlib_text, "train"),
        eval_dataset=partial(stdlib_text, "eval"),
        loss_fn=next_token_loss,
        compute_budgets=args.budgets,
        sizes=args.sizes,
        recipe=flops_fit.Recipe(
            learning_rate=args.lr, batch_size=args.batch, eval_examples=args.eval_examples
        ),
        name="gpt-cluster",
        executor=executor,
        workers=args.workers,
    )


if __name__ == "__main__":
    main()
