"""The templates, the style sheet and the script of HTML pages."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def page_file(name: str) -> str:
    """The text of one of these files."""
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
