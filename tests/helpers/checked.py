"""The checks of a fit, for tests that ask which of them a table of runs raises."""

from flops_fit.result import fit


def severities(runs, **options):
    """Fit the runs and return the severity of each check, by code."""
    result = fit(runs, num_draws=100, **options)
    return {check.code: check.severity for check in result.checks}
