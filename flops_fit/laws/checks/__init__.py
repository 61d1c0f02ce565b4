"""What is doubtful about runs, fits and predictions."""

from flops_fit.laws.check import Check as Check
