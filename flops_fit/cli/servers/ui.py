"""`flops-fit ui`: the MLflow UI on the right store, with links to the sweeps."""

from __future__ import annotations

from flops_fit.cli.servers.mlflow_server import ended, require_free, served
from flops_fit.errors import SweepError
from flops_fit.runtime.signals import orderly_termination
from flops_fit.store.uri import without_credentials
from flops_fit.tracking.experiments import find_ledger, list_ledgers
from flops_fit.tracking.ledger import TOGGLE, Ledger

_MOST_LINKS = 10


def serve(name: str | None, tracking_uri: str | None, port: int) -> None:
    """Serve the MLflow UI until stopped; if the store is a server, only print links to it.

    Raises:
        ArgumentError: The port is taken.
        SweepError: The store or the sweep does not exist, or MLflow does not start, or it ends.
        KeyboardInterrupt, SystemExit: After Ctrl-C or SIGTERM, once MLflow has ended.
    """
    ledgers = [find_ledger(name, tracking_uri)] if name else list_ledgers(tracking_uri)
    if not ledgers:
        raise SweepError("the store holds no sweep yet; start one with `flops-fit run`")
    uri = ledgers[0].tracking_uri
    if uri.startswith("http"):  # that server has the UI already
        print(links(ledgers, without_credentials(uri)))
        return
    require_free("127.0.0.1", port, "--port")
    # MLflow takes a while to answer, so the links come first.
    print(f"{links(ledgers, f'http://127.0.0.1:{port}')}\nMLflow is starting ...", flush=True)
    with orderly_termination(), served(uri, "127.0.0.1", port) as process:
        print("MLflow answers. Press Ctrl-C to stop", flush=True)
        # Waits until MLflow ends, which it does not do by itself; the error says how it ended.
        raise ended(process)


def links(ledgers: list[Ledger], address: str) -> str:
    """A line for each of the first sweeps: its name and the address of its page.

    The address selects the view that lists runs; MLflow would open the experiment in another one.
    """
    lines = [f"{ledger.name}: {address.rstrip('/')}/{ledger.page}" for ledger in ledgers]
    more = len(lines) - _MOST_LINKS
    hint = f"(in MLflow, choose {TOGGLE} at the top left)"
    return "\n".join([*lines[:_MOST_LINKS], *([f"and {more} more"] if more > 0 else []), hint])
