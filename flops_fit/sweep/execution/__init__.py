"""Running a plan: the queue of trials, workers, executors and progress."""
