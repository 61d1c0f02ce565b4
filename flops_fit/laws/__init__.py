"""Scaling laws and how they are fitted to any table of runs. Uses NumPy, SciPy and pandas only."""
