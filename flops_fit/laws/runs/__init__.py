"""What laws are fitted to: the table of runs, read, grouped and cleaned."""
