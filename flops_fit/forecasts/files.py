"""Forecasts in files: one JSON file each, which is never overwritten."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from flops_fit.errors import ArgumentError, TableError, in_short
from flops_fit.forecasts.record import Forecast, from_json, to_json
from flops_fit.warn import warn_user

FOLDER = "forecasts"  # here, and among the artifacts of a parent run: a stored name
# Characters of a result's name in a file's; each may take four bytes of the 255 that a name has.
LONGEST_NAME = 50
# A larger file is not a forecast.
LARGEST = 1_000_000

Source = Forecast | str | os.PathLike[str]


def slug(name: str) -> str:
    """A name as part of the name of a file: it may hold characters that a file name cannot."""
    return re.sub(r"[^-.\w]+", "_", name).lstrip(".")[:LONGEST_NAME]


def keep(
    forecast: Forecast,
    path: str | os.PathLike[str] | None,
    log: Callable[[str, str], str] | None,
) -> Forecast:
    """Write a forecast to a file, and to the parent run of its sweep.

    Args:
        forecast: The forecast.
        path: The file, or an existing folder; by default a file in `forecasts`.
        log: Writes a text under a name to the parent run, and returns where; None if there is none.

    Returns:
        The forecast, with where it was written.

    Raises:
        ArgumentError: The file exists, or cannot be written.
    """
    file = _write(forecast, path)
    artifact = ""
    not_logged = ""
    if log is None and forecast.setting:
        not_logged = "not logged to the sweep: its result was loaded from files"
    if log is not None:
        try:
            artifact = log(f"{FOLDER}/{forecast.id}.json", to_json(forecast))
        except Exception as error:  # whatever ails an artifact store: the file is written
            not_logged = "not logged to the sweep: its store failed"
            warn_user(
                f"the forecast is in {file}, but not on the parent run of the sweep "
                f"({in_short(error)}): flops_fit.score reads the file, the sweep's report lacks it"
            )
    return replace(forecast, path=file, artifact=artifact, not_logged=not_logged)


def load_forecast(path: str | os.PathLike[str]) -> Forecast:
    """Read a forecast from the file that `Result.forecast` wrote.

    Args:
        path: The file.

    Raises:
        ArgumentError: It is no path.
        TableError: There is no such file, it is no forecast, or was changed after it was made.
    """
    if not isinstance(path, str | os.PathLike):
        raise ArgumentError(f"path: expected the path of a forecast, got {path!r:.80}")
    file = Path(path)
    try:
        if file.stat().st_size > LARGEST:
            raise TableError(f"{file} holds no forecast: it is larger than {LARGEST:,} bytes")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"{file} cannot be read: {error}") from error
    return replace(from_json(text, str(file)), path=file)


def gather(forecasts: Source | Iterable[Source]) -> list[Forecast]:
    """Forecasts, from themselves, their files, or folders of files; each once, oldest first.

    A file of a folder that holds no forecast is left out with a warning.

    Raises:
        ArgumentError: There is no forecast.
        TableError: A file holds none.
    """
    if isinstance(forecasts, Forecast | str | os.PathLike):
        given: list[Source] = [forecasts]
    elif isinstance(forecasts, Iterable):
        given = list(forecasts)
    else:
        raise ArgumentError(f"forecasts: expected files of forecasts, got {forecasts!r:.80}")
    found: dict[str, Forecast] = {}
    for source in given:
        for forecast in _read(source):
            found.setdefault(forecast.id, forecast)
    if not found:
        raise ArgumentError(f"forecasts: expected files of forecasts, got {forecasts!r}")
    return sorted(found.values(), key=lambda forecast: forecast.made_at)


def _read(source: Source) -> list[Forecast]:
    if isinstance(source, Forecast):
        return [source]
    if not isinstance(source, str | os.PathLike):
        raise ArgumentError(f"forecasts: expected a Forecast or the path of one, got {source!r}")
    if not Path(source).is_dir():
        return [load_forecast(source)]
    found, foreign = [], []
    for file in sorted(Path(source).glob("*.json")):
        try:
            found.append(load_forecast(file))
        except TableError as error:
            foreign.append(str(error))
    if foreign:
        warn_user(f"left out, for they are no forecasts: {'; '.join(foreign)}")
    return found


def _write(forecast: Forecast, path: str | os.PathLike[str] | None) -> Path:
    if path is not None and not isinstance(path, str | os.PathLike):
        raise ArgumentError(f"path: expected a file or a folder, got {path!r:.80}")
    try:
        return _written(forecast, os.fsdecode(FOLDER if path is None else path), path is None)
    except FileExistsError as error:
        raise ArgumentError(
            f"path: {error.filename} exists, and forecasts are never overwritten: use another path"
        ) from error
    except ArgumentError:
        raise
    except (OSError, ValueError) as error:  # also a name that is too long, or holds a NUL
        raise ArgumentError(f"path: {str(path)[:200]!r} cannot be written: {error}") from error


def _written(forecast: Forecast, path: str, is_folder: bool) -> Path:
    file = Path(path)
    if is_folder or path.endswith((os.sep, "/")) or file.is_dir():
        stem = slug(forecast.name)
        file /= f"{stem}-{forecast.id}.json" if stem else f"{forecast.id}.json"
    try:
        os.makedirs(file.parent, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"path: the folder {file.parent} cannot be made: {error}") from error
    # "x" fails where the file exists: a forecast that could be replaced would prove nothing.
    with open(file, "x", encoding="utf-8") as stream:
        stream.write(to_json(forecast))
    return file
