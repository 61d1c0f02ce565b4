"""Checks of runs, of fits and of predictions, one per function."""

from flops_fit.laws.check import Check as Check
