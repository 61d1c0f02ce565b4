"""Self-contained HTML pages: templates that escape, images, and the policy for what may run."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_SVG = 110_000  # bytes; eight plots of this size keep the page under 1.5 MB in base64
DOTS_PER_INCH = 160


@dataclass(frozen=True)
class Drawing:
    """A plot as an image file: SVG, or PNG if its many points would make a large SVG.

    Attributes:
        title: What the plot shows.
        kind: "svg" or "png".
        content: The bytes of the file.
    """

    title: str
    kind: Literal["svg", "png"]
    content: bytes

    @property
    def data_uri(self) -> str:
        """The image as a `data:` address, for an `<img>` element: images cannot run scripts."""
        mime = "image/svg+xml" if self.kind == "svg" else "image/png"
        return f"data:{mime};base64,{base64.b64encode(self.content).decode()}"


def drawing(title: str, figure: Figure) -> Drawing:
    """A figure as an image file."""
    import matplotlib

    content = io.BytesIO()
    # A fixed salt and no date: the same result gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "flops-fit"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    if len(content.getvalue()) <= LARGEST_SVG:
        return Drawing(title, "svg", content.getvalue())
    content = io.BytesIO()  # too large: a bitmap instead
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
    return Drawing(title, "png", content.getvalue())


def policy_hash(text: str) -> str:
    """The hash by which the content security policy allows a script or a style sheet."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def trusted(text: str) -> Any:
    """Text that the template must not escape: only files of this package."""
    from markupsafe import Markup

    return Markup(text)


@cache
def template(text: str) -> Any:
    """A Jinja template of HTML; it escapes everything, and unknown names in it raise."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)
