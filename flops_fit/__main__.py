"""`python -m flops_fit` is `flops-fit`."""

from flops_fit.cli import main

main(prog_name="flops-fit")
