"""Whether the reader sits at a notebook, and where lines for the reader go."""

from __future__ import annotations

import sys
from typing import Any, TextIO


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code: JupyterLab, VS Code, Colab and others."""
    return hasattr(_shell(), "kernel")


def for_the_reader() -> TextIO:
    """Where lines about what is being done go.

    It is standard error, so that the output of a script can be piped. Notebooks show that in red,
    as if it were an error: there it is standard output.
    """
    return sys.stdout if in_notebook() else sys.stderr


def tell(text: str) -> None:
    """Print a line about what is being done."""
    print(text, file=for_the_reader(), flush=True)


def show_html(html: str, text: str) -> Any:
    """Show HTML in a notebook, with the same as plain text for those who show no HTML.

    Returns:
        A handle for `update_html`.
    """
    display = sys.modules["IPython"].display
    return display.display(_bundle(html, text), raw=True, display_id=True)


def update_html(handle: Any, html: str, text: str) -> None:
    """Replace what `show_html` showed."""
    handle.update(_bundle(html, text), raw=True)


_WAITING: list[object] = []


def show_at_end_of_cell(thing: object) -> None:
    """Show something once its cell has run, unless `note_shown` hears by then that it was shown.

    So a figure appears where its line ends with a semicolon, or is not the last of the cell, as
    figures of pyplot do. Does nothing outside of notebooks.
    """
    if not in_notebook():
        return
    events = _shell().events
    if _show_waiting not in events.callbacks["post_execute"]:
        events.register("post_execute", _show_waiting)
    _WAITING.append(thing)


def note_shown(thing: object) -> None:
    """Note that something is being shown."""
    _WAITING[:] = [waiting for waiting in _WAITING if waiting is not thing]


def _show_waiting() -> None:
    _shell().events.unregister("post_execute", _show_waiting)
    things = [*_WAITING]
    _WAITING.clear()
    for thing in things:
        sys.modules["IPython"].display.display(thing)


def _bundle(html: str, text: str) -> dict[str, str]:
    return {"text/html": html, "text/plain": text}


def _shell() -> Any:
    """IPython's shell; None outside of IPython, which is never imported for this."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else getattr(ipython, "get_ipython", lambda: None)()
