"""The quickstart notebook, executed anew; `make notebook` writes its outputs."""

from __future__ import annotations

import copy
import sys
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"
PATIENCE = 1800  # seconds that a cell may take on a busy machine


def execute(folder: Path) -> Any:
    """Execute the notebook in a folder, which gets its store and its report.

    Args:
        folder: The working directory.

    Returns:
        The notebook with new outputs.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(folder)}}
    options: dict[str, Any] = {"timeout": PATIENCE, "coalesce_streams": True}
    NotebookClient(notebook, kernel_name="python3", resources=where, **options).execute()
    return notebook


def cleaned(notebook: Any, folder: Path) -> Any:
    """The notebook without times, versions and the machine's paths."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            output.pop("transient", None)
            if "text" in output:
                output["text"] = _without(output["text"], folder)
            for kind, content in output.get("data", {}).items():
                if kind.startswith("text/"):
                    output["data"][kind] = _without(content, folder)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def _without(text: str, folder: Path) -> str:
    """Paths in the working directory, relative to it."""
    return text.replace(f"{folder}/", "")


def main() -> None:
    """Execute the notebook, and write its outputs into it."""
    import nbformat

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        notebook = cleaned(execute(folder), folder)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    sys.exit(main())
