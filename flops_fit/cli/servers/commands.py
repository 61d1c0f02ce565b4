"""The commands that serve: `flops-fit ui` and `flops-fit server`."""

from __future__ import annotations

from pathlib import Path

import click

from flops_fit.cli import options

_PORT = click.IntRange(1, 65535)


@click.option("--name", help="Sweep to link to. Default: all sweeps.")
@options.tracking_uri
@click.option("--port", type=_PORT, default=5000, show_default=True, help="Port to listen on.")
def ui(name: str | None, tracking_uri: str | None, port: int) -> None:
    """Serve the MLflow UI, and print links to the sweeps.

    \b
    Example:
      flops-fit ui --name gpt
    """
    from flops_fit.cli.servers.ui import serve

    serve(name, tracking_uri, port)


@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="flops_fit_server",
    show_default=True,
    help="Folder for databases, artifacts and passwords.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=_PORT, default=5000, show_default=True, help="Port of MLflow.")
@click.option(
    "--postgres-port", type=_PORT, default=5432, show_default=True, help="Port of PostgreSQL."
)
def server(folder: Path, host: str, port: int, postgres_port: int) -> None:
    """Serve PostgreSQL and MLflow, for sweeps on several machines.

    Needs `pip install 'flops-fit[server]'`; Docker is not needed. PostgreSQL asks for a password.
    MLflow does not: whoever can reach --host can read and change what it stores.

    \b
    Example:
      flops-fit server --host 0.0.0.0
    """
    from flops_fit.cli.servers.postgres_and_mlflow import serve

    serve(folder, host, port, postgres_port)
