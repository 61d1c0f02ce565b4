"""The databases of MLflow and Optuna: addresses, clients, locks, errors and retries."""

from flops_fit.store.client import client_of, exclusive
from flops_fit.store.faults import store_error, store_errors
from flops_fit.store.locks import one_at_a_time
from flops_fit.store.retry import wait_for_store, with_timeout, without_mlflow_retries
from flops_fit.store.uri import check_uri, resolve_uri, sqlite_folder, without_credentials

__all__ = [
    "check_uri",
    "client_of",
    "exclusive",
    "one_at_a_time",
    "resolve_uri",
    "sqlite_folder",
    "store_error",
    "store_errors",
    "wait_for_store",
    "with_timeout",
    "without_credentials",
    "without_mlflow_retries",
]
