#!/bin/sh
# Gives a command the passwords of MLflow and PostgreSQL, from files, and becomes it.
set -eu
umask 077
secrets=${SECRETS_DIR:-/run/secrets}

PGPASSFILE=$HOME/.pgpass
printf '*:*:*:optuna:%s\n' "$(cat "$secrets/optuna_password")" > "$PGPASSFILE"
MLFLOW_TRACKING_USERNAME=trainer
MLFLOW_TRACKING_PASSWORD=$(cat "$secrets/mlflow_trainer_password")
export PGPASSFILE MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD

umask 022
exec "$@"
