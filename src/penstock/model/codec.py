"""The envelope (what is opaque to the store), results, and the rules for what may travel in them.

Only JSON travels. An envelope is a JSON object; fields that this version does not know are kept when it is rewritten.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NewType

import msgspec
from msgspec import Raw, Struct

from penstock.model.errors import EnvelopeCorrupt, EnvelopeTooNew, PayloadInvalid, PayloadTooLarge

ENVELOPE_VERSION = 1
DEFAULT_MAX_PAYLOAD = 1024 * 1024
MAX_DEPTH = 64
SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**63 - 1

#: JSON that stands for itself and is not decoded here.
RawJson = NewType("RawJson", bytes)

#: Makes all digits the same, so that a long number is found by a plain search; a regular expression takes five times
#: as long, in every enqueue.
_DIGITS_ALIKE = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19
_NULL = b"null"
_CONTAINERS = (dict, list, tuple, set, frozenset)


class Envelope(Struct, frozen=True, omit_defaults=True):
    """Version 1. `args` is a JSON array, `kwargs` an object; `enc`, `kid` and `sig` belong to encryption."""

    v: int
    task: str
    args: Raw = Raw(b"[]")
    kwargs: Raw = Raw(b"{}")
    headers: dict[str, str] | None = None
    trace: str | None = None
    enc: str | None = None
    kid: str | None = None
    sig: str | None = None


class _Version(Struct):
    v: int


_encode_envelope = msgspec.json.Encoder().encode
_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_version = msgspec.json.Decoder(_Version).decode

#: What msgspec raises for bytes that are not what they should be, and for values that have no JSON form.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError, msgspec.MsgspecError)


def encode_envelope(
    task: str,
    args: bytes,
    kwargs: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    trace: str | None = None,
    limit: int = DEFAULT_MAX_PAYLOAD,
) -> tuple[bytes, int]:
    """Make an envelope of arguments that are JSON already, with its CRC-32.

    Raises:
        PayloadTooLarge: it is over `limit` bytes.
        PayloadInvalid: the task's name or a header is no valid text.
    """
    try:
        data = _encode_envelope(
            Envelope(ENVELOPE_VERSION, task, Raw(args), Raw(kwargs), dict(headers) if headers else None, trace)
        )
    except UnicodeEncodeError as error:
        raise PayloadInvalid(
            f"A header or the name of task {task!r} holds a lone surrogate, which is not valid Unicode: {error}. "
            "Decode such text with errors='replace'.",
            "headers",
        ) from error
    if len(data) > limit:
        raise PayloadTooLarge(f"The envelope of a job of task {task!r}", len(data), limit)
    return data, zlib.crc32(data)


def decode_envelope(data: bytes, crc: int | None) -> Envelope:
    """Read an envelope after checking its CRC.

    Raises:
        EnvelopeCorrupt: the checksum differs, or it is no envelope.
        EnvelopeTooNew: a newer major version wrote it.
    """
    if crc is not None and zlib.crc32(data) != crc:
        raise _corrupt("fails its CRC-32: its bytes are not those that were accepted")
    try:
        envelope = _decode_envelope(data)
    except _UNREADABLE as error:
        _refuse_newer(data)
        raise _corrupt(f"cannot be read: {error}") from error
    if envelope.v > ENVELOPE_VERSION:
        raise EnvelopeTooNew(envelope.v, ENVELOPE_VERSION)
    return envelope


def _refuse_newer(data: bytes) -> None:
    """Look at the version alone: a newer one may give any other field another form."""
    with suppress(*_UNREADABLE):
        version = _decode_version(data).v
        if version > ENVELOPE_VERSION:
            raise EnvelopeTooNew(version, ENVELOPE_VERSION)


def _corrupt(why: str) -> EnvelopeCorrupt:
    return EnvelopeCorrupt(
        f"The stored envelope {why}. Look for damage with `penstock doctor`, then delete the job and enqueue it again."
    )


def amend_envelope(
    data: bytes, *, args: bytes | None = None, kwargs: bytes | None = None, limit: int = DEFAULT_MAX_PAYLOAD
) -> tuple[bytes, int]:
    """Replace the arguments in an envelope and keep all else, unknown fields included."""
    try:
        fields: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Raw])
    except _UNREADABLE as error:
        raise _corrupt(f"cannot be read: {error}") from error
    if args is not None:
        fields["args"] = Raw(args)
    if kwargs is not None:
        fields["kwargs"] = Raw(kwargs)
    amended = msgspec.json.encode(fields)
    if len(amended) > limit:
        raise PayloadTooLarge("The edited envelope", len(amended), limit)
    return amended, zlib.crc32(amended)


def encode_value(
    value: object, what: str, *, limit: int = DEFAULT_MAX_PAYLOAD, enc_hook: Callable[[Any], Any] | None = None
) -> bytes:
    """Write a value as JSON after checking that every reader will get the same value back.

    Args:
        what: names the value in errors, as in "the result of task 'resize'".

    Raises:
        PayloadInvalid: NaN or infinity, an integer beyond 64 bits, a lone surrogate, nesting deeper than 64, a type
            without a JSON form. `path` says where.
        PayloadTooLarge: over `limit` bytes.
    """
    try:
        data = msgspec.json.encode(value, enc_hook=enc_hook)
    except _UNWRITABLE as error:
        raise _explain(value, what, error, enc_hook) from error
    check_encoded(data, value, what, limit=limit, enc_hook=enc_hook)
    return data


def check_encoded(
    data: bytes,
    value: object,
    what: str,
    *,
    limit: int = DEFAULT_MAX_PAYLOAD,
    enc_hook: Callable[[Any], Any] | None = None,
) -> None:
    """Refuse what JSON writers let through: NaN as null, huge integers, endless nesting.

    The bytes tell in one pass whether any of these can be present; only then is the value itself walked.
    """
    size = len(data)
    if size > limit:
        raise PayloadTooLarge(_begun(what), size, limit)
    if size < len(_NULL):
        return
    nested = size > MAX_DEPTH and data.count(b"[") + data.count(b"{") > MAX_DEPTH
    if nested or data.find(_NULL) >= 0 or data.translate(_DIGITS_ALIKE).find(_LONG_NUMBER) >= 0:
        try:
            plain = _builtins(value, enc_hook)
        except _UNWRITABLE as error:
            raise _explain(value, what, error, enc_hook) from error
        _walk(plain, what, "", 0)


def parse_json(text: str | bytes, what: str) -> Any:
    """Read JSON that a person or another program wrote, as strictly as penstock writes it.

    Raises:
        PayloadInvalid: no JSON, a key given twice in one object, NaN, lone surrogates or nesting deeper than 64.
    """
    import json

    def refuse(name: str) -> Any:
        raise PayloadInvalid(f"{_begun(what)} holds {name}, which is not JSON; write null or a text instead.")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if key in found:
                raise PayloadInvalid(f"{_begun(what)} gives the key {key!r} twice in one object; leave one out.", key)
            found[key] = value
        return found

    try:
        value = json.loads(text, parse_constant=refuse, object_pairs_hook=pairs)
    except RecursionError as error:
        raise _too_deep(what) from error
    except ValueError as error:
        raise PayloadInvalid(f"{_begun(what)} is not JSON: {error}.") from error
    _walk(value, what, "", 0)
    return value


def _builtins(value: object, enc_hook: Callable[[Any], Any] | None) -> object:
    return msgspec.to_builtins(value, enc_hook=enc_hook, str_keys=True)


def _explain(value: object, what: str, error: Exception, enc_hook: Callable[[Any], Any] | None) -> PayloadInvalid:
    endless = isinstance(error, RecursionError)
    with suppress(*_UNWRITABLE):
        try:
            _walk(value if endless else _builtins(value, enc_hook), what, "", 0)
        except PayloadInvalid as found:
            return found
    if endless:
        return _too_deep(what, ", or holds itself")
    path = _unwritable(value, enc_hook, "", 0)
    return PayloadInvalid(
        f"{_begun(what)} cannot be written as JSON{_at(path)}: {error}. Give an id or plain values instead.", path
    )


def _unwritable(value: object, enc_hook: Callable[[Any], Any] | None, path: str, depth: int) -> str:
    """Find the innermost item of lists and dicts that has no JSON form."""
    for step, inner in _items(value) if depth < MAX_DEPTH else ():
        try:
            msgspec.json.encode(inner, enc_hook=enc_hook)
        except _UNWRITABLE:
            return _unwritable(inner, enc_hook, path + step, depth + 1)
    return path


def _items(value: object) -> Iterable[tuple[str, object]]:
    if isinstance(value, dict):
        return ((f".{key}", inner) for key, inner in value.items() if isinstance(key, str))
    if isinstance(value, list | tuple):
        return ((f"[{index}]", inner) for index, inner in enumerate(value))
    return ()


def _walk(value: object, what: str, path: str, depth: int) -> None:
    if depth >= MAX_DEPTH and isinstance(value, _CONTAINERS):
        raise _too_deep(what, path=path)
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key, what, path, "a key")
            _walk(inner, what, f"{path}.{key}", depth + 1)
    elif isinstance(value, _CONTAINERS):
        for index, inner in enumerate(value):
            _walk(inner, what, f"{path}[{index}]", depth + 1)
    elif isinstance(value, str):
        _check_text(value, what, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _unfit(what, str(value), path, "; JSON has no such number, so give None or text instead.")
    elif isinstance(value, int) and not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
        raise _unfit(what, "an integer beyond 64 bits", path, "; give it as text or Decimal.")


def _check_text(value: object, what: str, path: str, found: str = "text") -> None:
    if not isinstance(value, str):
        return
    try:
        value.encode()
    except UnicodeEncodeError:
        rest = ", which is not valid Unicode; decode it with errors='replace', or give bytes."
        raise _unfit(what, f"{found} with a lone surrogate", path, rest) from None


def _unfit(what: str, found: str, path: str, rest: str) -> PayloadInvalid:
    return PayloadInvalid(f"{_begun(what)} holds {found}{_at(path)}{rest}", path)


def _too_deep(what: str, also: str = "", path: str = "") -> PayloadInvalid:
    return PayloadInvalid(f"{_begun(what)} is nested deeper than {MAX_DEPTH} levels{also}; make it flatter.", path)


def _at(path: str) -> str:
    return f" at {path.removeprefix('.')}" if path else ""


def _begun(what: str) -> str:
    return what[:1].upper() + what[1:]
