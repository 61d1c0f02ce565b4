"""Prepares what `mlflow server` needs from files of secrets, then becomes it.

No password reaches a command line. The one that must be in the environment (the key that signs
the pages' forms; MLflow reads it nowhere else) is put there for the server alone. A bucket and an
account that exist are kept as they are.
"""

from __future__ import annotations

import configparser
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

TRAINER = "trainer"
AUTH_CACHE_S = 60


def main(command: list[str]) -> None:
    """Prepare, then run a command in this process's place."""
    secrets = Path(os.environ.get("SECRETS_DIR", "/run/secrets"))
    home = Path(os.environ["HOME"])
    os.umask(0o077)
    os.environ["PGPASSFILE"] = write_pgpass(home, _read(secrets, "mlflow_db_password"))
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(secrets / "s3_credentials")
    os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] = _read(secrets, "mlflow_secret_key")
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = write_auth_config(
        home, os.environ["AUTH_DATABASE_URI"], _read(secrets, "mlflow_admin_password")
    )
    make_trainer(os.environ["AUTH_DATABASE_URI"], _read(secrets, "mlflow_trainer_password"))
    make_bucket(os.environ["MLFLOW_ARTIFACTS_DESTINATION"])
    os.execvp(command[0], command)


def write_pgpass(home: Path, password: str) -> str:
    """The file from which PostgreSQL's client takes the password; its path."""
    path = home / ".pgpass"
    path.write_text(f"*:*:*:mlflow:{password}\n")
    return str(path)


def write_auth_config(home: Path, database_uri: str, admin_password: str) -> str:
    """MLflow's file of accounts; its path. The password counts while there is no admin yet."""
    config = configparser.ConfigParser(interpolation=None)
    config["mlflow"] = {
        "default_permission": "READ",
        "database_uri": database_uri,
        "admin_username": "admin",
        "admin_password": admin_password,
        "auth_cache_ttl_seconds": str(AUTH_CACHE_S),
    }
    path = home / "basic_auth.ini"
    with path.open("w") as file:
        config.write(file)
    return str(path)


def make_trainer(database_uri: str, password: str) -> None:
    """An account that trains: it owns the experiments that it makes, and reads the others."""
    store = SqlAlchemyStore()
    store.init_db(database_uri)
    if not store.has_user(TRAINER):
        store.create_user(TRAINER, password)
    store.engine.dispose()


def make_bucket(uri: str) -> None:
    """The bucket of an address s3://bucket/path."""
    bucket = urlsplit(uri).netloc
    client = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    if bucket not in {found["Name"] for found in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=bucket)


def _read(secrets: Path, name: str) -> str:
    return (secrets / name).read_text().strip()


if __name__ == "__main__":
    main(sys.argv[1:])
