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


def _bundle(html: str, text: str) -> dict[str, str]:
    return {"text/html": html, "text/plain": text}


def _shell() -> Any:
    """IPython's shell; None outside of IPython, which is never imported for this."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else getattr(ipython, "get_ipython", lambda: None)()
