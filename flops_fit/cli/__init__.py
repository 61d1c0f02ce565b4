"""`flops-fit demo | plan | run | worker | analyze | predict | report | ui | server`.

Each command is a thin layer over the library. What is heavy is imported when a command runs, so
that `--help` and shell completion stay quick.
"""

from flops_fit.cli.commands import main as main
