#!/bin/sh
# Runs once, on an empty data folder: a role and its databases for MLflow, the same for Optuna.
set -eu
SECRETS_DIR=${SECRETS_DIR:-/run/secrets}
export SECRETS_DIR

psql --username "${POSTGRES_USER:-postgres}" --dbname postgres --no-psqlrc --quiet \
    --set ON_ERROR_STOP=1 <<'SQL'
\set mlflow_password `cat "$SECRETS_DIR/mlflow_db_password"`
\set optuna_password `cat "$SECRETS_DIR/optuna_password"`
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE ROLE optuna LOGIN PASSWORD :'optuna_password';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
CREATE DATABASE optuna OWNER optuna;
REVOKE CONNECT, TEMPORARY ON DATABASE mlflow, mlflow_auth, optuna FROM PUBLIC;
SQL
