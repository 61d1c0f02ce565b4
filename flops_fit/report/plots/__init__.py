"""The plots: one module per plot, their common style, and the panels of a result."""
