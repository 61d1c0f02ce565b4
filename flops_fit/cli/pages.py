"""What `ui` does: MLflow's pages, served from the right store, with links that show runs."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from flops_fit.errors import ArgumentError, SweepError
from flops_fit.store import without_credentials
from flops_fit.tracking import Ledger, find_ledger, list_ledgers

_STOP_S = 10.0
_MOST_LINKS = 10


def serve(name: str | None, tracking_uri: str | None, port: int) -> None:
    """Serve a store's pages until stopped; of a server's, print the links alone.

    Raises:
        ArgumentError: The port is taken.
        SweepError: There is no such store or sweep, or MLflow does not come up.
        KeyboardInterrupt: After Ctrl-C, once MLflow has ended.
    """
    ledgers = [find_ledger(name, tracking_uri)] if name else list_ledgers(tracking_uri)
    if not ledgers:
        raise SweepError("the store holds no sweep yet; run one first")
    uri = ledgers[0].tracking_uri
    if uri.startswith("http"):
        print(links(ledgers, without_credentials(uri)))
        return
    address = f"http://127.0.0.1:{port}"
    if _is_taken(port):
        raise ArgumentError(f"port {port} is taken; pass another --port")
    with _mlflow_ui(uri, port) as process:
        _wait_until_up(process, address)
        print(f"{links(ledgers, address)}\nCtrl-C stops it", flush=True)
        process.wait()


def links(ledgers: list[Ledger], address: str) -> str:
    """A line a sweep: its name and its page. MLflow would open the experiment in another view."""
    lines = [f"{ledger.name}: {address.rstrip('/')}/{ledger.page}" for ledger in ledgers]
    more = len(lines) - _MOST_LINKS
    return "\n".join(lines[:_MOST_LINKS] + ([f"and {more} more"] if more > 0 else []))


@contextlib.contextmanager
def _mlflow_ui(uri: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The server, which ends with us; its store's address may hold a password, so not in `ps`."""
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until_up(process: subprocess.Popen[bytes], address: str) -> None:
    while process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        time.sleep(0.2)
    raise SweepError(f"mlflow ui ended with exit code {process.returncode}; see its words above")
