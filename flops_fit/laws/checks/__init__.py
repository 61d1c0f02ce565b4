"""Checks of runs, of fits and of predictions, one per function."""
