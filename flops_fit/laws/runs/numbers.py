"""Numbers as people write them in tables: 70M, 1.4B, 1,000,000, 3,7, 20T tokens, 6e18 FLOPs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

# What a suffix multiplies by. "g" is giga, as in "1.3G".
SCALES = {
    **dict.fromkeys(("k", "thousand", "thousands"), 1e3),
    **dict.fromkeys(("m", "mn", "mm", "mio", "million", "millions"), 1e6),
    **dict.fromkeys(("b", "bn", "g", "billion", "billions"), 1e9),
    **dict.fromkeys(("t", "tn", "trillion", "trillions"), 1e12),
}
# Units of compute, in FLOPs; a PF-day is 1e15 FLOP/s for a day.
COMPUTE_SCALES = {
    **{
        f"{prefix}flop": 10.0**power
        for prefix, power in zip("kmgtpezy", range(3, 27, 3), strict=True)
    },
    **{f"{word}flop": scale for word, scale in (("peta", 1e15), ("exa", 1e18), ("zetta", 1e21))},
    **dict.fromkeys(("pfday", "pfsday", "pflopday", "pflopsday", "petaflopday"), 8.64e19),
    **dict.fromkeys(("petaflopsday", "petaflopsdays", "pflopsdays"), 8.64e19),
    "ef": 1e18,
    "zf": 1e21,
}
# Words after a number that do not change it.
UNITS = frozenset(
    "token tokens tok toks param params parameter parameters example examples sample samples "
    "sequence sequences image images flop flops nat nats".split()
)
_NUMBER = re.compile(
    r"[~\u2248]?\s*([-+]?)(\d[\d., '_\u00a0\u2009\u202f]*|\.\d+)(e[-+]?\d+)?\s*(.*)"
)
_POWER_OF_TEN = re.compile(
    r"(?:(?<=[\d.,])\s*[x\u00d7*\u00b7]\s*|^)10\s*(?:\^|\*\*)\s*\{?([-+]?\d+)\}?"
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_THOUSANDS_AND_POINT = re.compile(r"\d{1,3}(?:,\d{3})+\.\d+|\d{1,3}(?:,\d{3}){2,}")
_DECIMAL_COMMA = re.compile(r"(?:\d{1,3}(?:\.\d{3})+|\d*),\d+")
_GROUPED = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+")


def to_numbers(cells: pd.Series, *, decimal_comma: bool = False) -> pd.Series:
    """The cells of a column as floats; NaN where a cell holds no number.

    Args:
        cells: Numbers, or text such as "1.4B".
        decimal_comma: Whether a comma in text is the decimal mark, and a point groups thousands.
    """
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return pd.Series(cells.to_numpy(float, na_value=np.nan), cells.index)
    values = [_number(cell, decimal_comma) for cell in cells.astype(object)]
    numbers = pd.Series(values, cells.index, dtype=float)
    if decimal_comma:
        return numbers
    # Plain text keeps the last bit that pandas gives it.
    plain = pd.to_numeric(cells.astype(object).where(numbers.abs() < np.inf), errors="coerce")
    return plain.astype(float).fillna(numbers)


def uses_decimal_comma(cells: Iterable[object]) -> bool:
    """Whether commas in these cells are decimal marks: some are, and none can only group digits."""
    decimal = False
    for cell in cells:
        if not isinstance(cell, str) or "," not in cell:
            continue
        digits = re.match(r"[-+~]?([\d.,]*)", cell.strip())
        text = digits.group(1) if digits else ""
        if _THOUSANDS_AND_POINT.fullmatch(text):
            return False
        if _DECIMAL_COMMA.fullmatch(text) and not _GROUPED.fullmatch(text):
            decimal = True
    return decimal


def scale_of(unit: str) -> float | None:
    """What a unit in a column's name multiplies by: "M", "billions", "PF-days", "1e18"."""
    word = re.sub(r"[\s_\-/]", "", unit.lower().translate(_SUPERSCRIPTS))
    power = re.fullmatch(r"(?:x?10\^?|1?e)(\d{1,2})", word)
    if power:
        return float(10.0 ** int(power.group(1)))
    if word in UNITS:
        return 1.0
    return SCALES.get(word) or COMPUTE_SCALES.get(word) or COMPUTE_SCALES.get(word.rstrip("s"))


def _number(cell: Any, decimal_comma: bool) -> float:
    if isinstance(cell, str):
        return _parse(cell, decimal_comma)
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return math.nan
    try:
        return float(cell)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return math.nan


def _parse(text: str, decimal_comma: bool) -> float:
    text = text.strip().lower()
    guarded = re.fullmatch(r'=\(?"(.*)"\)?', text)  # Excel's text that looks like a number
    text = guarded[1] if guarded else text
    if not decimal_comma:
        try:
            return float(text) if "_" not in text else float(text.replace("_", ""))
        except ValueError:
            pass
    found = _NUMBER.fullmatch(_plain_powers(text))
    if not found:
        return float(text) if text in ("inf", "-inf", "infinity", "-infinity") else math.nan
    sign, digits, power, unit = found.groups()
    plain = _without_groups(digits.strip(), decimal_comma)
    scale = _scale_of_words(unit)
    if plain is None or scale is None:
        return math.nan
    return float(f"{sign}{plain}{power or ''}") * scale


def _plain_powers(text: str) -> str:
    """Powers of ten as exponents: "6 x 10^18" as "6e18", and "10**18" as "1e18"."""
    text = re.sub(r"([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda m: "^" + m[1].translate(_SUPERSCRIPTS), text)
    return _POWER_OF_TEN.sub(lambda m: f"{'1' if m.start() == 0 else ''}e{m[1]}", text)


def _without_groups(digits: str, decimal_comma: bool) -> str | None:
    """Digits without separators of thousands, and with a decimal point; None if they are amiss."""
    digits = re.sub(r"[ '_\u00a0\u2009\u202f]+(?=\d{3}(?!\d))", "", digits)
    group, mark = (".", ",") if decimal_comma else (",", ".")
    if re.fullmatch(r"\d{1,3}(?:\.\d{3}){2,}", digits):  # 1.234.567 is no decimal number
        return digits.replace(".", "")
    whole, _, decimals = digits.partition(mark)
    if group in whole and not re.fullmatch(rf"\d{{1,3}}(?:\{group}\d{{3}})+", whole):
        # A lone point, as in 2.5 among decimal commas, is a point.
        if not (decimal_comma and not decimals and whole.count(".") == 1):
            return None
        return whole
    plain = whole.replace(group, "") + (f".{decimals}" if decimals else "")
    return plain if re.fullmatch(r"\d*\.?\d+", plain) else None


def _scale_of_words(text: str) -> float | None:
    """What the words after a number multiply by; None if one of them is unknown."""
    text = text.strip()
    if not text:
        return 1.0
    whole = scale_of(text)
    if whole is not None:
        return whole
    scale = 1.0
    for word in text.split():
        factor = scale_of(word)
        if factor is None:
            return None
        scale *= factor
    return scale
