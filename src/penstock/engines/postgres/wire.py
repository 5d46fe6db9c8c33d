"""Arrays in PostgreSQL's binary form, made at once: the driver would look at every element.

An array whose elements are all None is sent as NULL, which `unnest` reads as an array of NULLs.
Source: src/backend/utils/adt/arrayfuncs.c, array_recv.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format

__all__ = ["bools", "byteas", "ints", "longs", "register", "shared", "texts"]

_T = TypeVar("_T")

_HEADER = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i").pack
_NULL = _LENGTH(-1)
_BOOL, _BYTEA, _INT8, _INT4, _TEXT = 16, 17, 20, 23, 25
_TRUE, _FALSE = _LENGTH(1) + b"\1", _LENGTH(1) + b"\0"


class Bools(bytes):
    """A bool[]."""


class Byteas(bytes):
    """A bytea[]."""


class Longs(bytes):
    """A bigint[]."""


class Ints(bytes):
    """An integer[]."""


class Texts(bytes):
    """A text[]."""


def longs(values: Sequence[int | None]) -> Longs | None:
    """Make a bigint[]."""
    packed = _numbers(values, _INT8, "q", 8)
    return None if packed is None else Longs(packed)


def ints(values: Sequence[int | None]) -> Ints | None:
    """Make an integer[]."""
    packed = _numbers(values, _INT4, "i", 4)
    return None if packed is None else Ints(packed)


def bools(values: Sequence[bool]) -> Bools:
    """Make a boolean[]."""
    return Bools(_header(len(values), _BOOL, False) + b"".join([_TRUE if value else _FALSE for value in values]))


def texts(values: Sequence[str | None]) -> Texts | None:
    """Make a text[].

    Raises:
        ValueError: a text holds NUL or a lone surrogate, which PostgreSQL cannot store.
    """
    try:
        packed = _items([None if value is None else value.encode() for value in values], _TEXT)
    except UnicodeEncodeError as error:
        raise ValueError(f"The store cannot take {error.object!r}: it holds a lone surrogate.") from error
    return None if packed is None else Texts(packed)


def byteas(values: Sequence[bytes | None]) -> Byteas | None:
    """Make a bytea[]."""
    packed = _items(values, _BYTEA)
    return None if packed is None else Byteas(packed)


def shared(values: Sequence[_T], may: bool) -> Sequence[_T]:
    """Give the one value that all are equal to, if that may stand for them, or all."""
    return values[:1] if may and values and values.count(values[0]) == len(values) else values


def _header(count: int, kind: int, nulls: bool) -> bytes:
    return _HEADER.pack(1, nulls, kind, count, 1) if count else struct.pack("!iiI", 0, 0, kind)


def _numbers(values: Sequence[int | None], kind: int, letter: str, size: int) -> bytes | None:
    count = len(values)
    if None not in values:
        items: list[Any] = [size] * (2 * count)
        items[1::2] = values
        return _header(count, kind, False) + struct.pack("!" + f"i{letter}" * count, *items)
    if values.count(None) == count:
        return None
    pack = struct.Struct(f"!i{letter}").pack
    return _header(count, kind, True) + b"".join(_NULL if one is None else pack(size, one) for one in values)


def _items(values: Sequence[bytes | None], kind: int) -> bytes | None:
    nulls = None in values
    if nulls and values.count(None) == len(values):
        return None
    parts = [_header(len(values), kind, nulls)]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts += (_LENGTH(len(value)), value)
    return b"".join(parts)


def register(context: AdaptContext) -> None:
    """Let a connection take these arrays as parameters."""
    for kind, oid in _OIDS:
        dumper = type(f"{kind.__name__}Dumper", (_Sent,), {"oid": oid})
        context.adapters.register_dumper(kind, dumper)


class _Sent(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> bytes:
        return bytes(obj)


_OIDS: Iterable[tuple[type[bytes], int]] = ((Bools, 1000), (Byteas, 1001), (Ints, 1007), (Longs, 1016), (Texts, 1009))
