"""What `ui` does: MLflow's pages, served from the right store, with links that show runs."""

from __future__ import annotations

from flops_fit.cli.mlflow_server import ended, served
from flops_fit.errors import SweepError
from flops_fit.runtime.signals import orderly_termination
from flops_fit.store.uri import without_credentials
from flops_fit.tracking.experiments import find_ledger, list_ledgers
from flops_fit.tracking.ledger import Ledger

_MOST_LINKS = 10


def serve(name: str | None, tracking_uri: str | None, port: int) -> None:
    """Serve a store's pages until stopped; of a server's, print the links alone.

    Raises:
        ArgumentError: The port is taken.
        SweepError: There is no such store or sweep, MLflow does not come up, or it ends.
        KeyboardInterrupt, SystemExit: After Ctrl-C or SIGTERM, once MLflow has ended.
    """
    ledgers = [find_ledger(name, tracking_uri)] if name else list_ledgers(tracking_uri)
    if not ledgers:
        raise SweepError("the store holds no sweep yet; run one first")
    uri = ledgers[0].tracking_uri
    if uri.startswith("http"):
        print(links(ledgers, without_credentials(uri)))
        return
    with orderly_termination(), served(uri, "127.0.0.1", port) as process:
        print(f"{links(ledgers, f'http://127.0.0.1:{port}')}\nCtrl-C stops it", flush=True)
        raise ended(process)


def links(ledgers: list[Ledger], address: str) -> str:
    """A line a sweep: its name and its page. MLflow would open the experiment in another view."""
    lines = [f"{ledger.name}: {address.rstrip('/')}/{ledger.page}" for ledger in ledgers]
    more = len(lines) - _MOST_LINKS
    return "\n".join(lines[:_MOST_LINKS] + ([f"and {more} more"] if more > 0 else []))
