"""Durations as people write them: seconds, timedeltas, or text such as `1h30m`."""

import math
import re
from datetime import timedelta

from penstock.model.errors import DurationInvalid

Duration = float | int | timedelta | str

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*", re.ASCII)
_PARTS = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)

#: The longest duration there is: 100 years.
LONGEST_S = 100 * 365.25 * 86400


def seconds(value: object) -> float:
    """Read a duration as seconds.

    Numbers are seconds. Text is numbers with the units ms, s, m, h, d, w, joined as in `1h30m`; plain digits are
    seconds.

    Raises:
        DurationInvalid: not a duration, negative, not finite, or above 100 years.

    >>> seconds("1h30m"), seconds(2), seconds(timedelta(minutes=1))
    (5400.0, 2.0, 60.0)
    """
    if isinstance(value, bool):
        raise DurationInvalid(value, "a truth value is no number of seconds")
    if isinstance(value, timedelta):
        found = value.total_seconds()
    elif isinstance(value, int | float):
        found = _number(value)
    elif isinstance(value, str):
        found = _text(value)
    else:
        raise DurationInvalid(value, f"a {type(value).__name__} says nothing of time")
    if not math.isfinite(found):
        raise DurationInvalid(value, "it is not finite")
    if found < 0:
        raise DurationInvalid(value, "it is negative")
    if found > LONGEST_S:
        raise DurationInvalid(value, "it is above 100 years")
    return found


def milliseconds(value: object) -> int:
    """Read a duration as whole milliseconds, rounded up so that nothing above zero becomes zero."""
    found = seconds(value)
    return max(math.ceil(round(found * 1000, 6)), 1 if found else 0)


def spell(duration_s: float) -> str:
    """Write seconds the way `seconds` reads them, at most two units long.

    >>> spell(5400), spell(0.25), spell(90061)
    ('1h30m', '250ms', '1d1h')
    """
    if duration_s < 1:
        return f"{round(duration_s * 1000)}ms"
    if duration_s < 10:
        return f"{round(duration_s, 1):g}s"
    left, parts = round(duration_s), []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise DurationInvalid(value, "it is above 100 years" if value > 0 else "it is negative") from None


def _text(value: str) -> float:
    text = value.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        return float(text)
    if not _PARTS.fullmatch(text):
        raise DurationInvalid(value, "it is negative" if text.startswith("-") else "its form is not known")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
