"""Servers that commands start: MLflow's UI, and PostgreSQL with MLflow for several machines."""
