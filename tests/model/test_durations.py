import math
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.model.durations import LONGEST_S, milliseconds, seconds, spell
from penstock.model.errors import DurationInvalid

DURATIONS = st.floats(0, LONGEST_S)
TEN_SECONDS = 10
UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (2, 2.0),
        (0.25, 0.25),
        (timedelta(minutes=1, milliseconds=500), 60.5),
        ("7", 7.0),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("90s", 90.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("2d", 172800.0),
        ("1w", 604800.0),
        ("1h 30m", 5400.0),
        (" 5 M ", 300.0),
        ("36525d", LONGEST_S),
    ],
)
def test_duration_is_read_as_seconds(value: object, expected: float) -> None:
    assert seconds(value) == pytest.approx(expected, abs=0)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (True, "truth value"),
        (None, "a NoneType says nothing of time"),
        (b"5m", "a bytes says nothing of time"),
        (Fraction(1), "a Fraction says nothing of time"),
        (math.nan, "not finite"),
        (math.inf, "not finite"),
        ("9" * 400, "not finite"),
        (-1, "negative"),
        (-math.inf, "not finite"),
        (timedelta(seconds=-1), "negative"),
        (-(10**400), "negative"),
        (10**400, "above 100 years"),
        (LONGEST_S + 1, "above 100 years"),
        (timedelta.max, "above 100 years"),
        ("101w 36525d", "above 100 years"),
        ("", "its form is not known"),
        ("soon", "its form is not known"),
        ("5min", "its form is not known"),
        ("1h30", "its form is not known"),
        ("m", "its form is not known"),
        ("-5s", "it is negative"),
        ("1,5h", "its form is not known"),
        ("1e3s", "its form is not known"),
        ("5m and 3s", "its form is not known"),
        ("٣s", "its form is not known"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_reason(value: object, why: str) -> None:
    with pytest.raises(DurationInvalid, match=why) as raised:
        seconds(value)
    assert raised.value.value is value
    assert "Give seconds, a timedelta, or text" in str(raised.value)


def test_long_digits_without_a_unit_are_refused_in_one_pass() -> None:
    with pytest.raises(DurationInvalid, match="its form is not known"):
        seconds("1" * 200_000 + "x")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (1, 1000), ("1ms", 1), (0.0001, 1), (1e-12, 1), (5e-324, 1), (0.0011, 2), ("0.3s", 300), (1.001, 1001)],
)
def test_milliseconds_round_up_to_whole_ones(value: object, expected: int) -> None:
    assert milliseconds(value) == expected


@given(DURATIONS)
def test_milliseconds_of_anything_above_zero_are_above_zero(duration_s: float) -> None:
    assert (milliseconds(duration_s) > 0) is (duration_s > 0)


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0ms"),
        (0.25, "250ms"),
        (0.9996, "1000ms"),
        (1, "1s"),
        (1.54, "1.5s"),
        (9.99, "10s"),
        (59.6, "1m"),
        (90, "1m30s"),
        (5400, "1h30m"),
        (90061, "1d1h"),
        (86405, "1d5s"),
        (LONGEST_S, "36525d"),
    ],
)
def test_duration_is_spelled_in_at_most_two_units(duration_s: float, text: str) -> None:
    assert spell(duration_s) == text


@given(DURATIONS)
def test_spelled_duration_is_read_back_to_the_precision_of_its_last_unit(duration_s: float) -> None:
    """Below ten seconds one decimal is kept; longer ones lose what stands behind their second unit."""
    text = spell(duration_s)
    if duration_s < TEN_SECONDS:
        lost = 0.0005 if text.endswith("ms") else 0.05
    elif duration_s < UNIT_S["h"]:
        lost = 0.5
    else:
        lost = UNIT_S["m"] if duration_s < UNIT_S["d"] - 0.5 else UNIT_S["h"]
    assert abs(seconds(text) - duration_s) <= lost + 1e-6


@given(DURATIONS)
def test_spelling_what_was_read_gives_the_same_text(duration_s: float) -> None:
    text = spell(duration_s)
    assert seconds(spell(seconds(text))) == seconds(text)


@given(st.text())
def test_any_text_is_a_bounded_duration_or_refused(text: str) -> None:
    try:
        found = seconds(text)
    except DurationInvalid:
        return
    assert 0 <= found <= LONGEST_S


@given(st.lists(st.tuples(st.integers(0, 99), st.sampled_from(sorted(UNIT_S))), min_size=1, max_size=6))
def test_parts_of_a_duration_add_up(parts: list[tuple[int, str]]) -> None:
    text = " ".join(f"{count}{unit}" for count, unit in parts)
    assert seconds(text) == pytest.approx(sum(count * UNIT_S[unit] for count, unit in parts))
