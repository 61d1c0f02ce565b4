"""Data sets of the Hugging Face Hub, or local files of the same layout, through `datasets`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flops_fit.errors import FlopsFitError


class HubError(FlopsFitError):
    """A data set cannot be read; the message says what to do."""


def load(name: str, split: str, columns: Sequence[str], folder: str | Path | None = None) -> Any:
    """Load a split of a data set as a `datasets.Dataset`.

    Args:
        name: Name on the hub, for example "uoft-cs/cifar10".
        split: Name of the split on the hub.
        columns: Columns that it must have.
        folder: Folder of parquet or text files that have the split in their names; None for the
            hub.

    Raises:
        HubError: `datasets` is not installed, the hub cannot be reached, or the files are missing
            or have other columns.
    """
    try:
        import datasets
    except ImportError as error:
        raise HubError(f"{name} is read by `datasets`: pip install 'flops-fit[hub]'") from error
    if folder is None:
        rows = _from_hub(datasets, name, split)
    else:
        rows = _from_folder(datasets, Path(folder), split)
    missing = [column for column in columns if column not in rows.column_names]
    if missing:
        raise HubError(
            f"{folder or name}: expected columns {', '.join(columns)}, as {name} has; got "
            f"{', '.join(rows.column_names)}"
        )
    return rows


def column(rows: Any, name: str) -> Iterator[Any]:
    """Iterate over a column without decoding, in batches of a thousand: images stay bytes."""
    for batch in rows.with_format("arrow").select_columns([name]).iter(1000):
        yield from batch[name].to_pylist()


def _from_hub(datasets: Any, name: str, split: str) -> Any:
    import huggingface_hub

    known = datasets.config.HF_HUB_OFFLINE
    try:
        if not known:
            huggingface_hub.HfApi().dataset_info(name, timeout=10)
    except Exception:  # not reachable: use an earlier download, without retries
        datasets.config.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(name, split=split)
    except Exception as error:
        why = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
        raise HubError(
            f"{name} cannot be had from the Hugging Face Hub ({why}); is there a network? With its "
            "files at hand, pass --data DIR"
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = known


def _from_folder(datasets: Any, folder: Path, split: str) -> Any:
    for kind, suffix in (("parquet", ".parquet"), ("text", ".txt")):
        files = sorted(str(file) for file in folder.rglob(f"*{split}*{suffix}"))
        if files:
            return datasets.load_dataset(kind, data_files={split: files}, split=split)
    raise HubError(f"no *{split}*.parquet or *{split}*.txt under {folder}")
