"""How sure a fit is: intervals, back-tests, outliers, tests of terms."""
