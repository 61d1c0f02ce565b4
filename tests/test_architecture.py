"""The structure of the package: no import cycle, small folders and files, all of it documented."""

from pathlib import Path

import grimp
import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "flops_fit"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
FOLDERS = sorted({path.parent for path in FILES})


def test_there_is_no_import_cycle():
    """Imports inside functions and under TYPE_CHECKING count too."""
    graph = grimp.build_graph("flops_fit", cache_dir=None)
    names = sorted(graph.modules)
    place = {name: index for index, name in enumerate(names)}
    edges = [
        (place[importer], place[imported])
        for importer in names
        for imported in graph.find_modules_directly_imported_by(importer)
    ]
    rows, columns = np.array(edges).T
    matrix = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(names), len(names)))
    count, labels = connected_components(matrix, directed=True, connection="strong")
    cycles = [
        [names[index] for index in np.flatnonzero(labels == label)]
        for label in range(count)
        if (labels == label).sum() > 1
    ]
    assert cycles == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_folder_holds_more_than_a_dozen_files(folder):
    # The package itself also holds the public modules and its own `__main__` and version.
    most = 16 if folder == PACKAGE else 12
    assert len(list(folder.glob("*.py"))) <= most + 1  # and `__init__.py`


def test_no_file_is_longer_than_350_lines():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > 350} == {}


def test_the_page_on_the_architecture_names_every_file():
    """Each file has its line in the tree of docs/architecture.md, and each line its file."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text.partition("```text\n")[2].partition("```")[0].splitlines()
    found, folders = [], []
    for line in tree:
        depth = (len(line) - len(line.lstrip())) // 2
        name, _, description = line.strip().partition(" ")
        assert description.strip(), f"no description: {line}"
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            found.append("".join([*folders, name]))
    assert sorted(found) == [str(path.relative_to(ROOT)) for path in FILES]


def test_test_modules_have_names_of_their_own():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert {name for name in names if names.count(name) > 1} == set()
