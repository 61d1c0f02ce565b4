"""The science: laws and fits on any table of runs. NumPy, SciPy and pandas only."""
