"""From a table of runs to `Findings`, and findings on disk."""
