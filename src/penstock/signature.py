"""The arguments and results of one function as JSON, checked against its annotations on the way out and in."""

import inspect
import os
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from msgspec import UNSET, Raw

from penstock.model.codec import DEFAULT_MAX_PAYLOAD, check_encoded, encode_value
from penstock.model.errors import ArgumentsInvalid, PayloadInvalid, PayloadTooLarge, TaskInvalid

__all__ = ["Signature", "anything", "decode_json", "enc_hook"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

#: What JSON would blur: a datetime is text in JSON, so `str` must be asked for by class. An int may stand for a float.
_STRICT: dict[type, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (float, int),
    bool: (bool,),
    bytes: (bytes, bytearray, memoryview),
    NoneType: (NoneType,),
}

_UNBOUNDED = 1 << 30
_DECODERS_KEPT = 64
_LONGEST_SHOWN = 100
_WHERE = re.compile(r"^(.*) - at `(?:key in )?\$(.*)`$", re.DOTALL)
#: `[...]` stands for any key of a dict.
_STEP = re.compile(r"\[(\d+)\]|\[\.\.\.\]|\.([^.\[]+)")
_EXPECTED = re.compile(r"^Expected `(.+)`, got `(.+)`$", re.DOTALL)


def enc_hook(value: Any) -> Any:
    """Write what msgspec does not write by itself."""
    if isinstance(value, os.PathLike) and isinstance(path := os.fspath(value), str):
        return path
    raise TypeError(f"a value of type {_name(type(value))} has no JSON form")


def dec_hook(kind: Any, value: Any) -> Any:
    """Read what msgspec does not read by itself."""
    if isinstance(kind, type) and issubclass(kind, os.PathLike) and isinstance(value, str):
        return kind(value)  # type: ignore[call-arg]  # every path class takes its text
    raise TypeError(f"JSON gives no {_name(kind)}")


_encode = msgspec.json.Encoder(enc_hook=enc_hook).encode
decode_json = msgspec.json.Decoder().decode


class Signature:
    """What a function takes and returns, as JSON.

    What `encode` accepts, `decode` converts to the annotated types: it is tried on the same bytes.

    Args:
        task: the task's name, for errors.

    Raises:
        TaskInvalid: an annotation is of a kind that JSON cannot be converted to.
    """

    def __init__(self, task: str, function: Callable[..., Any]) -> None:
        self._task = task
        self._function = function
        try:
            self._signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise TaskInvalid(
                f"{function!r} says not what it takes: {error}. Wrap it in a function of yours."
            ) from None
        parameters = self._signature.parameters.values()
        self._positional = [p.name for p in parameters if p.kind in _POSITIONAL]
        self._variadic = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self._var_keyword = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        self._named = {p.name for p in parameters if p.kind in _NAMED}
        required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        alone = not any(p.kind is p.KEYWORD_ONLY for p in required)
        self._least = len(required) if alone else _UNBOUNDED
        self._most = _UNBOUNDED if self._variadic else len(self._positional)
        self._resolved = False
        try:
            self._resolve()
        except NameError:
            # A name that is defined further down the module is known by the first call.
            self._resolved = False

    def _resolve(self) -> None:
        """Build everything that the annotations decide, once."""
        hints = _hints(self._function)
        self._types = {name: self._checked(name, hints.get(name, Any)) for name in self._signature.parameters}
        self._strict = [_strict_classes(self._types[name]) for name in self._positional]
        self._decoders: dict[int, msgspec.json.Decoder[Any]] = {}
        fields = [(name, self._types[name], UNSET) for name in self._signature.parameters if name in self._named]
        keywords = msgspec.defstruct("Keywords", fields, kw_only=True, forbid_unknown_fields=True)
        self._keywords = msgspec.json.Decoder(keywords, dec_hook=dec_hook)
        self._result = _lenient_decoder(hints.get("return", Any))
        self._exact = self._decoder(self._most).decode if self._least == self._most else None
        self._resolved = True

    def _checked(self, name: str, annotation: Any) -> Any:
        try:
            msgspec.json.Decoder(annotation, dec_hook=dec_hook)
            foreign = _foreign_class(annotation)
        except (TypeError, msgspec.MsgspecError) as error:
            raise self._untravelled(name, annotation, str(error)) from error
        if foreign is not None:
            raise self._untravelled(name, annotation, f"JSON gives no {_name(foreign)}.")
        return annotation

    def _untravelled(self, name: str, annotation: Any, why: str) -> TaskInvalid:
        return TaskInvalid(
            f"Parameter {name!r} of task {self._task!r} is annotated {_name(annotation)}, to which arguments that "
            f"travel as JSON cannot be converted. {why} Take an id or a plain value instead."
        )

    def _ensure(self) -> None:
        if self._resolved:
            return
        try:
            self._resolve()
        except NameError as error:
            raise TaskInvalid(
                f"An annotation of task {self._task!r} cannot be read: {error}. "
                "Import its name at run time, not only under TYPE_CHECKING."
            ) from error

    def encode(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], limit: int = DEFAULT_MAX_PAYLOAD
    ) -> tuple[bytes, bytes]:
        """Write arguments as a JSON array and object after checking that the function takes them.

        Raises:
            ArgumentsInvalid: they do not fit the signature or its annotations.
            PayloadInvalid: a value cannot travel.
        """
        if not self._resolved:
            self._ensure()
        self._check(args, kwargs)
        try:
            written = _write(args, limit)
            written_kwargs = _write(kwargs, limit) if kwargs else b"{}"
        except PayloadTooLarge as error:
            raise PayloadTooLarge(f"The arguments of task {self._task!r}", error.size, error.limit) from None
        except (PayloadInvalid, TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise self._unfit(args, kwargs, limit, error) from error
        self._read(written, written_kwargs, len(args), kwargs)
        return written, written_kwargs

    def decode(self, args: bytes, kwargs: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read stored arguments as the annotations say.

        Raises:
            ArgumentsInvalid: they do not fit, for instance because the function has changed.
        """
        if not self._resolved:
            self._ensure()
        if self._exact is None or kwargs != b"{}":
            return self._decode(args, kwargs)
        try:
            return self._exact(args), {}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError):
            return self._decode(args, kwargs)

    def _decode(self, args: bytes, kwargs: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read arguments of whatever number, and say what is wrong with those that do not fit."""
        try:
            count = len(decode_raw_list(args))
            names = decode_raw_dict(kwargs) if kwargs != b"{}" else {}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ArgumentsInvalid(
                self._task,
                f"they are no JSON array and object: {error}. Give the job others with `penstock jobs edit`.",
            ) from error
        if names or not self._least <= count <= self._most:
            self._bind((None,) * count, names)
        return self._read(args, kwargs, count, names)

    def bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Give every argument by the name of its parameter, defaults included."""
        found = self._bind(args, kwargs)
        found.apply_defaults()
        return dict(found.arguments)

    def decode_result(self, data: bytes) -> Any:
        """Read a result as the return annotation says; without one, or with one JSON cannot give, as plain JSON.

        Raises:
            PayloadInvalid: the function returned something else than its annotation says.
        """
        self._ensure()
        try:
            return self._result(data)
        except msgspec.MsgspecError as error:
            raise PayloadInvalid(
                f"The result of task {self._task!r} is {_shown(decode_json(data))}, which is not what its annotation "
                f"says: {error}. Return that, or change the annotation."
            ) from error

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        try:
            return self._signature.bind(*args, **kwargs)
        except TypeError as error:
            why = self._unknown(kwargs) or f"{error}."
            raise ArgumentsInvalid(self._task, f"{why} It takes {self._signature}.") from None

    def _unknown(self, names: Iterable[str]) -> str | None:
        """Name the first argument that is no parameter, and what was meant: it is why another one is missing."""
        parameters = self._signature.parameters
        name = None if self._var_keyword else next((name for name in names if name not in parameters), None)
        if name is None:
            return None
        import difflib

        near = difflib.get_close_matches(name, self._named, n=1)
        return f"there is no parameter {name!r}.{f' Did you mean {near[0]!r}?' if near else ''}"

    def _check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Compare count and classes; positional arguments of the very classes asked for, the usual case, pay least."""
        if kwargs or not self._least <= len(args) <= self._most:
            self._bind(args, kwargs)
        if kwargs or len(args) > len(self._strict):
            self._check_classes(args, kwargs)
            return
        for index, value in enumerate(args):
            classes = self._strict[index]
            if classes is not None and value.__class__ not in classes:
                self._check_classes(args, kwargs)
                return

    def _check_classes(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        for index, value in enumerate(args):
            self._check_class(self._place(index), value)
        for name, value in kwargs.items():
            self._check_class(name if name in self._named else self._var_keyword or name, value)

    def _check_class(self, name: str, value: Any) -> None:
        classes = _strict_classes(self._types[name])
        if classes is None or value.__class__ in classes:
            return
        if isinstance(value, tuple(classes)) and not (isinstance(value, bool) and bool not in classes):
            return
        raise ArgumentsInvalid(
            self._task,
            f"{name} is {_shown(value)}; expected {_name(self._types[name])}, got {_name(type(value))}.",
            name,
        )

    def _unfit(self, args: Sequence[Any], kwargs: Mapping[str, Any], limit: int, cause: Exception) -> PayloadInvalid:
        """Find the one argument that cannot travel."""
        for name, value in [*((self._place(i), value) for i, value in enumerate(args)), *kwargs.items()]:
            try:
                encode_value(value, f"argument {name!r} of task {self._task!r}", limit=limit, enc_hook=enc_hook)
            except PayloadInvalid as error:
                return error
        return PayloadInvalid(
            f"The arguments of task {self._task!r} cannot be written as JSON: {cause}. Give plain values instead."
        )

    def _read(
        self, args: bytes, kwargs: bytes, count: int, names: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            decoder = self._decoders.get(count) or self._decoder(count)
            values: tuple[Any, ...] = decoder.decode(args)
        except (msgspec.ValidationError, TypeError) as error:
            raise self._explained(error, args, self._place) from error
        return values, self._read_kwargs(kwargs, names) if names else {}

    def _read_kwargs(self, data: bytes, names: Mapping[str, Any]) -> dict[str, Any]:
        extra = [name for name in names if name not in self._named]
        if extra:
            return self._read_each(data)
        try:
            found = self._keywords.decode(data)
        except (msgspec.ValidationError, TypeError) as error:
            raise self._explained(error, data, str) from error
        return {name: getattr(found, name) for name in names}

    def _read_each(self, data: bytes) -> dict[str, Any]:
        """Read keywords one by one, where some are named by `**kwargs` alone."""
        read = {}
        for name, raw in decode_raw_dict(data).items():
            annotation = self._types[name if name in self._named else self._var_keyword or name]
            try:
                read[name] = msgspec.json.decode(raw, type=annotation, dec_hook=dec_hook)
            except (msgspec.ValidationError, TypeError) as error:
                raise self._explained(error, b'{"%b":%b}' % (name.encode(), raw), str, f".{name}") from error
        return read

    def _decoder(self, count: int) -> "msgspec.json.Decoder[Any]":
        types = [self._types[self._place(index)] for index in range(count)]
        decoder = msgspec.json.Decoder(tuple[tuple(types)] if types else tuple[()], dec_hook=dec_hook)  # type: ignore[misc]
        if len(self._decoders) < _DECODERS_KEPT:
            self._decoders[count] = decoder
        return decoder

    def _place(self, index: int) -> str:
        """Name the parameter that takes the positional argument at `index`."""
        return self._positional[index] if index < len(self._positional) else self._variadic or str(index)

    def _explained(
        self, error: Exception, data: bytes, place: Callable[[Any], str], prefix: str = ""
    ) -> ArgumentsInvalid:
        """Say in the words of the signature what msgspec says of `$[0].x`."""
        found = _WHERE.match(str(error))
        message, path = (found[1], prefix + found[2]) if found else (str(error), prefix)
        steps = [(step[0], int(step[1]) if step[1] else step[2]) for step in _STEP.finditer(path)]
        value, where = decode_json(data), ""
        for text, key in steps:
            where += text if where else place(key)
            try:
                value = value[key]
            except (LookupError, TypeError):
                break
        annotation = self._annotation(place(steps[0][1])) if steps else Any
        told = _told(message, annotation, [key for _, key in steps[1:]])
        return ArgumentsInvalid(self._task, f"{f'{where} is' if where else 'they are'} {_shown(value)}; {told}.", where)

    def _annotation(self, name: str) -> Any:
        return self._types[name if name in self._types else self._var_keyword or name]


decode_raw_list = msgspec.json.Decoder(list[Raw]).decode
decode_raw_dict = msgspec.json.Decoder(dict[str, Raw]).decode


def anything(*args: Any, **kwargs: Any) -> Any:
    """Stand for a function that is not known here: it takes and gives any JSON."""


def _told(message: str, annotation: Any, steps: Sequence[int | str | None]) -> str:
    """Say what would have done, where msgspec says only what is wrong, or speaks of JSON's own kinds."""
    from penstock.expectation import expectation

    words, expected = expectation(annotation, steps), _EXPECTED.match(message)
    if expected:
        return f"expected {words or expected[1]}, got {expected[2]}"
    said = message[:1].lower() + message[1:]
    if words and message.startswith("Object "):  # goes on with the field that is missing or unknown
        return f"{said}; expected {words}"
    return f"expected {words}" if words else said


def _write(arguments: Any, limit: int) -> bytes:
    written = _encode(arguments)
    check_encoded(written, arguments, "the arguments", limit=limit, enc_hook=enc_hook)
    return written


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    if isinstance(function, partial):
        return _hints(function.func)
    try:
        return typing.get_type_hints(function, include_extras=True)
    except TypeError:
        return typing.get_type_hints(type(function).__call__, include_extras=True)


def _strict_classes(annotation: Any) -> tuple[type, ...] | None:
    """Give the classes that an annotation of plain types asks for; None leaves the check to the decoder."""
    if get_origin(annotation) is typing.Annotated:
        return _strict_classes(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        parts = [_strict_classes(part) for part in get_args(annotation)]
        return None if None in parts else tuple(kind for part in parts for kind in part or ())
    return _STRICT.get(getattr(annotation, "__supertype__", annotation)) if _is_hashable(annotation) else None


def _is_hashable(annotation: Any) -> bool:
    try:
        hash(annotation)
    except TypeError:
        return False
    return True


def _foreign_class(annotation: Any) -> type | None:
    """Find a class inside an annotation that neither msgspec nor `dec_hook` can make from JSON."""
    from msgspec import inspect as structure

    seen: set[int] = set()
    left: list[Any] = [structure.type_info(annotation)]
    while left:
        item = left.pop()
        if isinstance(item, structure.CustomType) and not issubclass(item.cls, os.PathLike):
            return item.cls
        if isinstance(item, tuple | list):
            left.extend(item)
        elif isinstance(item, structure.Type | structure.Field) and id(item) not in seen:
            seen.add(id(item))
            left.extend(getattr(item, name) for name in item.__struct_fields__ if name != "default")
    return None


def _lenient_decoder(annotation: Any) -> Callable[[bytes], Any]:
    try:
        if _foreign_class(annotation) is None:
            return msgspec.json.Decoder(annotation, dec_hook=dec_hook).decode
    except (TypeError, msgspec.MsgspecError):
        return decode_json
    return decode_json


def result_decoder(function: Callable[..., Any]) -> Callable[[bytes], Any]:
    """Give what reads the JSON of what a function gave, as its return annotation says; without one, as plain JSON."""
    try:
        annotation = _hints(function).get("return", Any)
    except (NameError, TypeError, AttributeError):
        return decode_json
    return _lenient_decoder(annotation)


def _name(annotation: Any) -> str:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"
