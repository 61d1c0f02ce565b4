"""Where MLflow and Optuna keep things: addresses, clients, locks, errors, retries."""

from flops_fit.store.client import client_of, exclusive
from flops_fit.store.faults import store_error, store_errors
from flops_fit.store.locks import one_at_a_time
from flops_fit.store.retry import patiently, prompt_faults, with_timeout
from flops_fit.store.uri import check_uri, resolve_uri, sqlite_folder, without_credentials

__all__ = [
    "check_uri",
    "client_of",
    "exclusive",
    "one_at_a_time",
    "patiently",
    "prompt_faults",
    "resolve_uri",
    "sqlite_folder",
    "store_error",
    "store_errors",
    "with_timeout",
    "without_credentials",
]
