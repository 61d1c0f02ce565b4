"""What is doubtful about runs, fits and predictions."""
