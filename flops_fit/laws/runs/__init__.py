"""Tables of runs: reading, grouping by budget, excluding bad runs, and simulating sweeps."""
