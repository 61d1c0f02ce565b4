"""Sweeps compared, for people: a verdict, a table, plots and a page."""
