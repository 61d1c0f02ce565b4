"""Commands on tables of runs that were trained elsewhere. They need neither torch nor MLflow."""
