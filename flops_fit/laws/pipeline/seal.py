"""A seal on an archive: what it was fitted to, so that the same runs need not be fitted again.

`seal.json` lies in the archive's folder. It holds a hash of the runs and of all else that a fit
depends on, a hash of what the report shows beside the fit, and one of each file. An archive whose
files are not those that were sealed is not opened.

Training curves are not hashed: reading them takes some milliseconds a run. They are drawn, not
fitted, and those of ended runs do not change by themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy

from flops_fit.errors import TableError
from flops_fit.laws.findings import Findings
from flops_fit.laws.pipeline import archive
from flops_fit.runtime.atomic_write import atomic_write
from flops_fit.version import source_digest

SEAL = "seal.json"


@dataclass(frozen=True)
class Sealed:
    """An archive that is the fit of the runs asked for.

    Attributes:
        findings: What was fitted.
        shown: Hash of what the report shows beside the fit, as it was when the report was drawn.
    """

    findings: Findings
    shown: str


def key_of(runs: pd.DataFrame, meta: Mapping[str, str]) -> str:
    """Hash of all that a fit with the default options depends on, this version included.

    Args:
        runs: The table as it is given to the fit.
        meta: The metadata as they are given to the fit.
    """
    versions = {"flops-fit": source_digest()}
    versions |= {library.__name__: library.__version__ for library in (np, scipy, pd)}
    kinds = [str(kind) for kind in runs.dtypes]
    return hash_of(runs.to_csv(index=False), kinds, dict(meta), versions)


def hash_of(*values: object) -> str:
    """Hash of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def seal(folder: Path, key: str, shown: str) -> None:
    """Seal an archive.

    Args:
        folder: Where `archive.save` has written it.
        key: What it was fitted to, by `key_of`.
        shown: Hash of what its report shows beside.
    """
    files = {path.name: _hash_of_file(path) for path in sorted(folder.iterdir())}
    text = json.dumps({"key": key, "shown": shown, "files": files}, indent=2)
    atomic_write(folder / SEAL, text + "\n")


def open_sealed(folder: Path, key: str) -> Sealed | None:
    """The archive in a folder; None if it is not the fit of this key, or not as it was sealed."""
    try:
        stored = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        if stored["key"] != key or not stored["files"]:
            return None
        for name, hashed in stored["files"].items():
            if Path(name).name != name or _hash_of_file(folder / name) != hashed:
                return None
        return Sealed(archive.load(folder)[0], str(stored["shown"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, TableError):
        return None


def _hash_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
