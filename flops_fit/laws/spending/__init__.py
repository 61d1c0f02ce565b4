"""The best model for a time or an amount of money, at the speed of the runs."""
