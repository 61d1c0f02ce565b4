"""`flops-fit demo`, `plan`, `run`, `worker`, `fit`, `analyze`, `predict`, `forecast` and more.

Each command is a thin layer over the library. Heavy modules are imported only when a command runs,
so that `--help` and shell completion stay fast.
"""

from flops_fit.cli.commands import main as main
