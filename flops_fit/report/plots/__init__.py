"""The figures: one file a plot, the style they share, and the panels of a result."""
