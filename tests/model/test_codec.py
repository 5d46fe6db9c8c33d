import dataclasses
import json
import math
import sys
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.model.codec import (
    DEFAULT_MAX_PAYLOAD,
    ENVELOPE_VERSION,
    LARGEST_INTEGER,
    MAX_DEPTH,
    SMALLEST_INTEGER,
    amend_envelope,
    check_encoded,
    decode_envelope,
    encode_envelope,
    encode_value,
    parse_json,
)
from penstock.model.errors import (
    EnvelopeCorrupt,
    EnvelopeTooNew,
    PayloadInvalid,
    PayloadTooLarge,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
INTEGERS = st.integers(SMALLEST_INTEGER, LARGEST_INTEGER)
SCALARS = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=30)
# A key names its place in a path only if the path can be taken apart again.
KEYS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=30)
STEPS = st.lists(KEYS | st.integers(0, 3), max_size=8)
UNFIT_NUMBERS = (
    st.sampled_from([math.nan, math.inf, -math.inf])
    | st.integers(min_value=LARGEST_INTEGER + 1)
    | st.integers(max_value=SMALLEST_INTEGER - 1)
    | st.sampled_from([10**5000, -(10**5000)])
)
UNFIT_TEXT = st.builds(lambda a, b, c: a + b + c, TEXT, st.characters(categories=["Cs"]), TEXT)


@dataclasses.dataclass
class Order:
    id: int
    note: str | None = None
    weight: float = 1.0


class Point(msgspec.Struct):
    x: float
    y: float


def buried(value: object, steps: list[str | int]) -> tuple[object, str]:
    """A value at the end of a path through dicts and lists, and the path."""
    path = ""
    for step in reversed(steps):
        value, path = (
            ({step: value}, f".{step}{path}")
            if isinstance(step, str)
            else (
                [0] * step + [value],
                f"[{step}]{path}",
            )
        )
    return value, path


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


# -- values -----------------------------------------------------------------------------------------------------------


@given(JSON)
def test_value_is_the_same_after_writing_and_reading(value: object) -> None:
    data = encode_value(value, "the value")
    assert json.loads(data) == value
    assert parse_json(data, "the value") == value


@given(UNFIT_NUMBERS | UNFIT_TEXT, STEPS)
def test_what_no_reader_would_get_back_is_refused_with_its_path(unfit: object, steps: list[str | int]) -> None:
    value, path = buried(unfit, steps)
    with pytest.raises(PayloadInvalid) as raised:
        encode_value(value, "the value")
    assert raised.value.path == path
    assert (f" at {path.removeprefix('.')}" if path else "The value holds ") in str(raised.value)


@given(TREES, UNFIT_NUMBERS | UNFIT_TEXT)
def test_one_unfit_value_spoils_all_that_stands_beside_it(tree: object, unfit: object) -> None:
    with pytest.raises(PayloadInvalid) as raised:
        encode_value({"good": tree, "bad": unfit}, "the value")
    assert raised.value.path == ".bad"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "The value holds nan; JSON has no such number, so give None or text instead."),
        ({"a": [1, -math.inf]}, "The value holds -inf at a[1]; JSON has no such number, so give None or text instead."),
        (2**63, "The value holds an integer beyond 64 bits; give it as text or Decimal."),
        ({"a": {"b": 2**63}}, "The value holds an integer beyond 64 bits at a.b; give it as text or Decimal."),
        (
            ["\udcff"],
            "The value holds text with a lone surrogate at [0], which is not valid Unicode; "
            "decode it with errors='replace', or give bytes.",
        ),
        (
            {"a": {"\ud800": 1}},
            "The value holds a key with a lone surrogate at a, which is not valid Unicode; "
            "decode it with errors='replace', or give bytes.",
        ),
        (
            object(),
            "The value cannot be written as JSON: Encoding objects of type object is unsupported. "
            "Give an id or plain values instead.",
        ),
    ],
)
def test_refusal_says_what_and_where(value: object, message: str) -> None:
    with pytest.raises(PayloadInvalid) as raised:
        encode_value(value, "The value")
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"null": "null"},
        {"phone": "1234567890123456789012345"},
        {"n": SMALLEST_INTEGER, "m": LARGEST_INTEGER},
        [1e300, 1234567890123456789.0, 0.1234567890123456789],
        [[]] * 500,
        [{"a": []}] * 500,
        "[" * 500,
        {Decimal("1.10"): b"\x00", UUID(int=5): {1, 2}, 2**70: (1, None)},
        [Order(1), Order(2**62, "null", 5), Point(1, 2)],
        nested(MAX_DEPTH),
        [[{"k": nested(MAX_DEPTH - 3)}]],
    ],
)
def test_what_only_looks_suspicious_is_written(value: object) -> None:
    assert encode_value(value, "the value") == msgspec.json.encode(value)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Order(1, weight=math.nan), ".weight"),
        ([Point(1, 2), Point(1, math.inf)], "[1].y"),
        ((1, {"s": {math.nan}}), "[1].s[0]"),
        ({1: 2**64}, ".1"),
    ],
)
def test_faults_inside_objects_sets_and_tuples_are_found(value: object, path: str) -> None:
    with pytest.raises(PayloadInvalid) as raised:
        encode_value(value, "the value")
    assert raised.value.path == path


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, MAX_DEPTH + 2, 300, 10_000])
def test_nesting_deeper_than_the_limit_is_refused_where_it_passes_it(levels: int) -> None:
    with pytest.raises(PayloadInvalid, match="nested deeper than 64 levels") as raised:
        encode_value(nested(levels), "the value")
    assert raised.value.path == "[0]" * MAX_DEPTH


def test_list_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(PayloadInvalid, match="nested deeper than 64 levels"):
        encode_value(value, "the value")


def test_object_that_holds_itself_is_refused() -> None:
    order: Any = Order(1)
    order.note = order
    with pytest.raises(PayloadInvalid, match="or holds itself"):
        encode_value(order, "the value")


@given(st.integers(0, 40), st.integers(-2, 2))
def test_value_is_refused_exactly_above_its_size_limit(size: int, over: int) -> None:
    value = "x" * size
    limit = size + 2 - over
    if over <= 0:
        assert len(encode_value(value, "the result", limit=limit)) <= limit
    else:
        with pytest.raises(PayloadTooLarge, match="The result came to") as raised:
            encode_value(value, "the result", limit=limit)
        assert (raised.value.size, raised.value.limit) == (size + 2, limit)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object(), ""),
        ({"a": [1, {"b": object()}]}, ".a[1].b"),
        ((1, object()), "[1]"),
        ([{"a": {(1, 2): 3}}], "[0].a"),
        ({"s": {1, 1j}}, ".s"),
        ({1: object()}, ""),
        ({"a": 1, None: 2}, ""),
        ([Order(1, object())], "[0]"),  # type: ignore[arg-type]
    ],
)
def test_type_without_a_json_form_is_refused_with_its_path(value: object, path: str) -> None:
    with pytest.raises(PayloadInvalid, match="cannot be written as JSON") as raised:
        encode_value(value, "the value")
    assert raised.value.path == path


def test_type_without_a_json_form_too_deep_to_point_at_is_refused() -> None:
    value, path = buried(object(), ["a"] * (MAX_DEPTH + 10))
    with pytest.raises(PayloadInvalid, match="cannot be written as JSON") as raised:
        encode_value(value, "the value")
    assert path.startswith(raised.value.path)


def hook(value: Any) -> Any:
    if isinstance(value, PurePosixPath):
        return str(value)
    if isinstance(value, complex):
        return [value.real, value.imag]
    raise NotImplementedError(f"Objects of type {type(value).__name__} are not supported")


def test_hook_gives_other_types_a_json_form() -> None:
    assert encode_value({"p": PurePosixPath("/a"), "n": None}, "the value", enc_hook=hook) == b'{"p":"/a","n":null}'


def test_what_a_hook_gives_is_checked_too() -> None:
    with pytest.raises(PayloadInvalid) as raised:
        encode_value([complex(1, math.nan)], "the value", enc_hook=hook)
    assert raised.value.path == "[0][1]"


def test_type_that_the_hook_does_not_know_is_refused() -> None:
    with pytest.raises(PayloadInvalid, match="Objects of type object are not supported") as raised:
        encode_value([1, object()], "the value", enc_hook=hook)
    assert raised.value.path == "[1]"


def test_raw_json_that_cannot_be_looked_into_is_refused() -> None:
    with pytest.raises(PayloadInvalid, match="cannot be written as JSON"):
        encode_value([msgspec.Raw(b"1"), None], "the value")


def test_bytes_of_another_writer_are_checked_against_their_value() -> None:
    value = {"n": math.nan}
    with pytest.raises(PayloadInvalid) as raised:
        check_encoded(msgspec.json.encode(value), value, "the value")
    assert raised.value.path == ".n"


@pytest.mark.parametrize(("data", "crc"), [(b"{}", 1), (b"{}", None), (b"\xff", None), (b"[", None)])
def test_damage_is_told_with_what_to_do(data: bytes, crc: int | None) -> None:
    with pytest.raises(EnvelopeCorrupt, match=r"`penstock doctor`, then delete the job and enqueue it again\.$"):
        decode_envelope(data, crc)


# -- JSON of others ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("{'a': 1}", "is not JSON"),
        (b"\xff", "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ("[NaN]", "holds NaN, which is not JSON"),
        ("-Infinity", "holds -Infinity, which is not JSON"),
        ("[1e999]", r"holds inf at \[0\]"),
        ("[9223372036854775808]", r"beyond 64 bits at \[0\]"),
        ('{"a": "\\ud800"}', "lone surrogate at a"),
        ('{"\\ud800": 1}', "holds a key with a lone surrogate, which"),
        ('{"a": 1, "a": 1}', "gives the key 'a' twice"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper than 64"),
        ("[" * 200_000 + "]" * 200_000, "nested deeper than 64"),
    ],
)
def test_what_is_not_strict_json_is_refused(text: str | bytes, why: str) -> None:
    with pytest.raises(PayloadInvalid, match=f"The arguments .*{why}|The arguments {why}"):
        parse_json(text, "the arguments")


def test_json_is_read_from_text_and_bytes() -> None:
    assert (
        parse_json('{"a": [1, 2.5, null]}', "it") == parse_json(b'{"a": [1, 2.5, null]}', "it") == {"a": [1, 2.5, None]}
    )


@given(st.text() | st.binary())
def test_any_text_is_read_as_json_or_refused(text: str | bytes) -> None:
    try:
        value = parse_json(text, "it")
    except PayloadInvalid:
        return
    assert json.loads(encode_value(value, "it")) == value


# -- envelopes --------------------------------------------------------------------------------------------------------

TASKS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
HEADERS = st.none() | st.dictionaries(TEXT, TEXT, min_size=1)


@given(TASKS, st.lists(JSON, max_size=3), st.dictionaries(TEXT, JSON, max_size=3), HEADERS, st.none() | TEXT)
def test_envelope_is_the_same_after_writing_and_reading(
    task: str, args: list[object], kwargs: dict[str, object], headers: dict[str, str] | None, trace: str | None
) -> None:
    data, crc = encode_envelope(
        task, encode_value(args, "args"), encode_value(kwargs, "kwargs"), headers=headers, trace=trace
    )
    read = decode_envelope(data, crc)
    assert (read.v, read.task, read.headers, read.trace) == (ENVELOPE_VERSION, task, headers, trace)
    assert (json.loads(bytes(read.args)), json.loads(bytes(read.kwargs))) == (args, kwargs)
    assert crc == zlib.crc32(data)


def test_envelope_holds_what_is_said_and_nothing_else() -> None:
    data, _ = encode_envelope("mail.send", b"[7]", b"{}", headers={})
    assert json.loads(data) == {"v": 1, "task": "mail.send", "args": [7], "kwargs": {}}


def test_envelope_over_the_limit_is_refused_with_the_task() -> None:
    size = len(encode_envelope("t", b"[]", b"{}")[0])
    assert encode_envelope("t", b"[]", b"{}", limit=size)
    with pytest.raises(PayloadTooLarge, match="The envelope of a job of task 't'") as raised:
        encode_envelope("t", b"[]", b"{}", limit=size - 1)
    assert (raised.value.size, raised.value.limit) == (size, size - 1)


@pytest.mark.parametrize(("task", "headers"), [("\ud800", None), ("t", {"a": "\ud800"}), ("t", {"\udfff": "a"})])
def test_lone_surrogate_in_task_or_header_is_refused(task: str, headers: dict[str, str] | None) -> None:
    with pytest.raises(PayloadInvalid, match="lone surrogate"):
        encode_envelope(task, b"[]", b"{}", headers=headers)


@given(st.binary())
@example(b'{"v":1,"task":"\xff"}')
@example(b'{"v":1,"task":"\\ud800"}')
@example(b"[" * 100_000)
@example(b'{"v":1,"task":"t","x":' + b"[" * 100_000)
@example(b'{"v":1,"task":"t","headers":{"a":1}}')
def test_any_bytes_are_an_envelope_or_refused_as_corrupt_or_too_new(data: bytes) -> None:
    for crc in (None, zlib.crc32(data)):
        try:
            read = decode_envelope(data, crc)
        except (EnvelopeCorrupt, EnvelopeTooNew):
            continue
        assert read.v <= ENVELOPE_VERSION


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "v": st.integers() | SCALARS,
            "task": SCALARS,
            "args": JSON,
            "kwargs": JSON,
            "headers": JSON,
            "trace": SCALARS,
            "more": JSON,
        },
    )
)
def test_any_object_is_an_envelope_or_refused_as_corrupt_or_too_new(fields: dict[str, Any]) -> None:
    data = json.dumps(fields).encode()
    version = fields.get("v")
    newer = isinstance(version, int) and not isinstance(version, bool) and version > ENVELOPE_VERSION
    try:
        read = decode_envelope(data, None)
    except EnvelopeTooNew:
        assert newer
    except EnvelopeCorrupt:
        assert not newer
    else:
        assert (read.v, read.task) == (version, fields["task"])


@given(st.data())
def test_one_flipped_bit_is_noticed(data: st.DataObject) -> None:
    envelope, crc = encode_envelope("mail.send", b'[1,"abc"]', b'{"k":null}')
    bit = data.draw(st.integers(0, len(envelope) * 8 - 1))
    flipped = bytearray(envelope)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(EnvelopeCorrupt, match="fails its CRC-32"):
        decode_envelope(bytes(flipped), crc)


def test_envelope_of_a_foreign_writer_needs_no_checksum() -> None:
    read = decode_envelope(b'{"v": 1, "task": "t", "args": [1], "later": true}', None)
    assert (read.task, bytes(read.args), bytes(read.kwargs)) == ("t", b"[1]", b"{}")


@pytest.mark.parametrize("data", [b'{"v":2,"task":"t"}', b'{"v":2}', b'{"v":2,"task":["t"],"headers":7}'])
def test_newer_envelope_is_told_from_a_corrupt_one_whatever_its_form(data: bytes) -> None:
    with pytest.raises(EnvelopeTooNew) as raised:
        decode_envelope(data, zlib.crc32(data))
    assert raised.value.version == 2


@given(st.lists(JSON, max_size=3), st.dictionaries(KEYS, JSON, max_size=3))
def test_amended_envelope_keeps_all_but_the_arguments(args: list[object], more: dict[str, object]) -> None:
    fields = {"v": 1, "task": "t", "kwargs": {"a": 1}, "headers": {"h": "1"}} | {
        f"x_{key}": v for key, v in more.items()
    }
    data = encode_value(fields, "the envelope")
    amended, crc = amend_envelope(data, args=encode_value(args, "args"))
    assert json.loads(amended) == fields | {"args": args}
    assert decode_envelope(amended, crc).headers == {"h": "1"}


def test_amending_replaces_only_what_is_given() -> None:
    data, _ = encode_envelope("t", b"[1]", b'{"a":1}')
    assert json.loads(amend_envelope(data)[0]) == json.loads(data)
    assert json.loads(amend_envelope(data, kwargs=b'{"b":2}')[0]) == json.loads(data) | {"kwargs": {"b": 2}}


def test_amended_envelope_over_the_limit_is_refused() -> None:
    data, _ = encode_envelope("t", b"[]", b"{}")
    with pytest.raises(PayloadTooLarge, match="The edited envelope"):
        amend_envelope(data, args=b"[" + b" " * DEFAULT_MAX_PAYLOAD + b"]")


@given(st.binary())
@example(b'{"\xff":1}')
@example(b'{"\\ud800":1}')
@example(b"[" * 100_000)
@example(b'{"x":' + b"[" * 100_000)
def test_any_bytes_can_be_amended_or_are_refused_as_corrupt(data: bytes) -> None:
    try:
        amended, crc = amend_envelope(data, args=b"[1]")
    except EnvelopeCorrupt:
        return
    assert zlib.crc32(amended) == crc


# Deep nesting meets the recursion limit of C and Python code at different depths.
@pytest.mark.parametrize("levels", [sys.getrecursionlimit() // 2, sys.getrecursionlimit() * 20])
@pytest.mark.parametrize(
    "wrap", [lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: {7: inner}, lambda inner: (inner,)]
)
def test_endless_nesting_ends_in_a_clear_refusal(levels: int, wrap: Callable[[object], object]) -> None:
    value: object = 1
    for _ in range(levels):
        value = wrap(value)
    with pytest.raises(PayloadInvalid, match="nested deeper than 64 levels") as raised:
        encode_value(value, "the value")
    assert len(raised.value.path) > MAX_DEPTH
