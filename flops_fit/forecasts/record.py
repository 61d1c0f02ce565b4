"""`Forecast`: a dated prediction, and its text as JSON.

The id of a forecast ends with a hash of all that it says, so that a changed file is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from flops_fit.display import html, number_text
from flops_fit.errors import TableError
from flops_fit.records import Size
from flops_fit.validate import is_number, is_whole_number

# Version of the format; a reader accepts no other.
SCHEMA = 1
KIND = "flops-fit forecast"
# Two runs are of one size if N and D differ by no more than this each; so are two budgets.
SAME = 0.05
# Rows of a forecast that hold no number.
_TEXTS = ("of", "note", "in", "and")
_DIGEST = 10  # hex digits of the hash in an id
# Of the numbers of a file: JSON's integers know no bound.
LARGEST = 1e300

Interval = tuple[float, float]


@dataclass(frozen=True, repr=False)
class Forecast:
    """A prediction, written down with its date. Intervals are (low, high) at 95 %.

    Attributes:
        made_at: When, in UTC, as ISO 8601 text.
        name: Name of the sweep or result; may be empty.
        note: What its maker wrote with it.
        of_budget: Whether the best model for a budget was forecast, not the loss of a given one.
        compute_budget: C, FLOPs.
        num_params: N.
        num_tokens: D, tokens or examples.
        loss: Expected loss at N and D.
        loss_interval: Its interval.
        run_interval: Interval of the loss that one run there will reach.
        num_params_interval: Interval of N; None where N was given.
        num_tokens_interval: Interval of D; None where D was given.
        size: Value of the size parameter to build; None where the runs record no size.
        extrapolation: C over the largest budget among the runs.
        data_unit: What D counts.
        form: The form of the law.
        law_vector: (E, ln A, ln B, alpha, beta, gamma); then 1 / R_D* if D counts effective tokens,
            and 1 / R_N* if N counts effective parameters too.
        num_runs: Number of runs behind the law.
        setting: Hash of the sweep's model, data, loss and recipe; empty for a table of runs.
        data_digest: Hash of their N, D and losses.
        known_runs: Number of runs of this size, or at this budget, that the data already held.
        flops_fit: Version of flops-fit.
        by: Columns and values of the runs behind the law, if they were fitted apart from others.
        passes: Most passes over its data of a run behind a law that counts all tokens in full.
        size_param: Name of the size parameter.
        id: Date and hash: the forecast's own name.
        path: The file; None before it is written.
        artifact: Where it lies on the sweep's parent run; empty if it does not.
        not_logged: Why it was not put there; empty where it was, and when it is read again.
    """

    made_at: str
    name: str
    note: str
    of_budget: bool
    compute_budget: float
    num_params: float
    num_tokens: float
    loss: float
    loss_interval: Interval
    run_interval: Interval
    num_params_interval: Interval | None
    num_tokens_interval: Interval | None
    size: Size | None
    extrapolation: float
    data_unit: str
    form: str
    law_vector: tuple[float, ...]
    num_runs: int
    setting: str
    data_digest: str
    known_runs: int
    flops_fit: str
    by: tuple[tuple[str, str], ...] = ()
    passes: float = 1.0
    size_param: str = "size"
    id: str = ""
    path: Path | None = field(default=None, compare=False)
    artifact: str = field(default="", compare=False)
    not_logged: str = field(default="", compare=False)

    @property
    def group(self) -> str:
        """`by` as text; empty if the runs were not fitted apart."""
        return ", ".join(f"{name} {value}" for name, value in self.by)

    def __repr__(self) -> str:
        lines = [
            f"  {name:<12}{value}{f' (95 %: {ends})' if ends and value else ends}{remark}"
            for name, value, ends, remark in self._rows()
        ]
        return "\n".join([*self._headlines(), *lines])

    def _repr_html_(self) -> str:
        numbers = [
            (name, value + remark, interval)
            for name, value, interval, remark in self._rows()
            if name not in _TEXTS
        ]
        texts = [row[:2] for row in self._rows() if row[0] in _TEXTS]
        table = html.rows(numbers, ("", "forecast", "95 %"))
        return html.block(self._headlines(), table, html.facts(texts))

    def _headlines(self) -> list[str]:
        """What it is of, how far away that is, and a doubt."""
        of = f" of {self.name!r}" if self.name else ""
        beyond = f"{number_text.times(self.extrapolation)} times the largest budget"
        lines = [
            f"Forecast {self.id}{of}",
            f"  {number_text.flops(self.compute_budget)} FLOPs, {beyond}",
        ]
        return [*lines, "  the data already held such a run"] if self.known_runs else lines

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """Name, value, interval and remark, as text, of all that is known; as a prediction's."""
        count, loss = number_text.count, number_text.loss
        size = "" if self.size is None else f", {self.size_param} {self.size}"
        of_N, of_D = _ends(self.num_params_interval, count), _ends(self.num_tokens_interval, count)
        per_param = number_text.ratio(self.num_tokens / self.num_params)
        rows = [
            ("parameters", count(self.num_params), of_N, size),
            (self.data_unit, count(self.num_tokens), of_D, ""),
            ("D / N", per_param, "", f" {self.data_unit} per parameter"),
            ("loss", loss(self.loss), _ends(self.loss_interval, loss), ""),
            ("one run", "", _ends(self.run_interval, loss), ""),
            ("of", self.group, "", ""),
            ("note", number_text.folded(self.note, 300), "", ""),
            ("in", "" if self.path is None else str(self.path), "", ""),
            ("and", self.artifact or self.not_logged, "", ""),
        ]
        return [row for row in rows if any(row[1:])]


def identified(forecast: Forecast) -> Forecast:
    """The forecast with its id."""
    return replace(forecast, id=_id_of(_document(forecast)))


def to_json(forecast: Forecast) -> str:
    """A forecast as JSON, in strict JSON's numbers: null is an end that is not finite."""
    document = {"kind": KIND, "schema": SCHEMA, "id": forecast.id, **_document(forecast)}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def from_json(text: str, where: str) -> Forecast:
    """Read what `to_json` wrote.

    Args:
        text: The JSON.
        where: Its file, for messages.

    Raises:
        TableError: It is no forecast, of another schema, or was changed after it was made.
    """
    try:
        document = json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        raise TableError(f"{where} holds no forecast: it is not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise TableError(f"{where} holds no forecast: expected JSON with kind {KIND!r}")
    if document.get("schema") != SCHEMA:
        schema = document.get("schema")
        raise TableError(f"{where} has schema {schema!r}; this version of flops-fit reads {SCHEMA}")
    faults = [
        f"{name}: expected {expected}, got {document.get(name)!r}"
        for name, (expected, is_sound) in (_EXPECTED | _OPTIONAL).items()
        if not is_sound(document.get(name, _OPTIONAL_VALUES.get(name)))
    ]
    if faults:
        raise TableError(faults, f"{where} is a damaged forecast:")
    said = {key: value for key, value in document.items() if key not in ("kind", "schema", "id")}
    if document["id"] != _id_of(said):
        raise TableError(
            f"{where} was changed after the forecast was made: its id {document['id']!r} is not "
            "that of its content. Use the original file"
        )
    return _read(document)


def _document(forecast: Forecast) -> dict[str, Any]:
    """What a forecast says, as JSON values."""
    document = {name: getattr(forecast, name) for name in _EXPECTED if name != "id"}
    for name in _INTERVALS:
        ends = document[name]
        document[name] = None if ends is None else [_finite(end) for end in ends]
    document["law_vector"] = [_finite(value) for value in forecast.law_vector]
    if forecast.by:
        document["by"] = dict(forecast.by)
    if forecast.passes != 1:
        document["passes"] = forecast.passes
    if forecast.size_param != "size":
        document["size_param"] = forecast.size_param
    return document


def _read(document: Mapping[str, Any]) -> Forecast:
    values = {name: document[name] for name in _EXPECTED}
    for name in _INTERVALS:
        if values[name] is not None:
            low, high = values[name]
            values[name] = (
                -math.inf if low is None else float(low),
                math.inf if high is None else float(high),
            )
    # The logarithm of a coefficient that is zero is the only entry that may not be finite.
    values["law_vector"] = tuple(-math.inf if v is None else float(v) for v in values["law_vector"])
    values["by"] = tuple(document.get("by", {}).items())
    values["passes"] = float(document.get("passes", 1.0))
    values["size_param"] = document.get("size_param", "size")
    return Forecast(**values)


def _id_of(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    made_at = datetime.fromisoformat(document["made_at"])
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
    return f"{made_at:%Y%m%dT%H%M%S}-{digest}"


def _ends(interval: Interval | None, form: number_text.NumberFormat) -> str:
    return "" if interval is None else number_text.between(*interval, form)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _no_json(constant: str) -> float:
    raise ValueError(f"{constant} is not a number of JSON")


def _is_finite(value: Any) -> bool:
    return is_number(value) and abs(value) < LARGEST


def _is_positive(value: Any) -> bool:
    return _is_finite(value) and value > 0


def _is_end(value: Any) -> bool:
    return value is None or _is_finite(value)


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_end(end) for end in value)


def _is_date(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_by_text(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


_Expected = tuple[str, Callable[[Any], bool]]
_TEXT: _Expected = ("text", _is_text)
_POSITIVE: _Expected = ("a positive number", _is_positive)
_INTERVAL: _Expected = ("two numbers", _is_interval)
_MAYBE_INTERVAL: _Expected = ("two numbers or null", lambda v: v is None or _is_interval(v))
_COUNT: _Expected = ("a whole number", lambda v: is_whole_number(v) and 0 <= v < LARGEST)
_INTERVALS = ("loss_interval", "run_interval", "num_params_interval", "num_tokens_interval")
_EXPECTED: dict[str, _Expected] = {
    "id": _TEXT,
    "made_at": ("a date with its time zone", _is_date),
    "name": _TEXT,
    "note": _TEXT,
    "of_budget": ("true or false", lambda v: isinstance(v, bool)),
    "compute_budget": _POSITIVE,
    "num_params": _POSITIVE,
    "num_tokens": _POSITIVE,
    "loss": ("a number", _is_finite),
    "loss_interval": _INTERVAL,
    "run_interval": _INTERVAL,
    "num_params_interval": _MAYBE_INTERVAL,
    "num_tokens_interval": _MAYBE_INTERVAL,
    "size": ("a number, text or null", lambda v: v is None or _is_text(v) or _is_finite(v)),
    "extrapolation": _POSITIVE,
    "data_unit": _TEXT,
    "form": _TEXT,
    "law_vector": (
        "six to eight numbers",
        lambda v: isinstance(v, list) and 6 <= len(v) <= 8 and all(map(_is_end, v)),
    ),
    "num_runs": _COUNT,
    "setting": _TEXT,
    "data_digest": _TEXT,
    "known_runs": _COUNT,
    "flops_fit": _TEXT,
}
# Keys that a file may lack, as those of earlier versions do, and their values there.
_OPTIONAL: dict[str, _Expected] = {
    "by": ("names and values as text", _is_text_by_text),
    "passes": ("a number of 1 or more", lambda v: _is_finite(v) and v >= 1),
    "size_param": _TEXT,
}
_OPTIONAL_VALUES: dict[str, Any] = {"by": {}, "passes": 1.0, "size_param": "size"}
assert set(_EXPECTED) | set(_OPTIONAL) | {"path", "artifact", "not_logged"} == {
    part.name for part in fields(Forecast)
}
