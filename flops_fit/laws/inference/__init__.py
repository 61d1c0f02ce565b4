"""Uncertainty of the fits: intervals, back-tests, outliers and tests of the law's terms."""
