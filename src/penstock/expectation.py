"""What an annotation would have taken at a place inside it, in words for whoever gave something else."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import inspect as structure

__all__ = ["expectation"]

_MOST_LISTED = 20

_OBJECTS = (structure.DataclassType, structure.StructType, structure.TypedDictType)

#: What JSON knows only as text or number, by what would do.
_FORMS: dict[type[structure.Type], str] = {
    structure.DateType: "a date such as 2030-01-07",
    structure.DateTimeType: "a date and time such as 2030-01-07T08:00:00Z",
    structure.TimeType: "a time such as 08:00:00",
    structure.TimeDeltaType: "a duration such as PT1H30M",
    structure.UUIDType: "a UUID such as 6f1b0c9e-3d52-4a8e-9c41-0d7a5e2b8f13",
    structure.DecimalType: "a decimal number such as 12.50",
}
_PLAIN: dict[type[structure.Type], str] = {
    structure.NoneType: "None",
    structure.BoolType: "bool",
    structure.IntType: "int",
    structure.FloatType: "float",
    structure.StrType: "str",
    structure.BytesType: "bytes",
    structure.DictType: "an object",
    structure.CustomType: "text",
    structure.AnyType: "anything",
}


def expectation(annotation: Any, steps: Sequence[int | str | None]) -> str | None:
    """Say what an annotation takes inside it; None where msgspec's own words say as much.

    Args:
        steps: the way in: places, names of fields, and None for any key of a dict.

    >>> from datetime import date
    >>> expectation(list[date | None], [3])
    'a date such as 2030-01-07 or None'
    >>> expectation(list[int], [3]) is None
    True
    """
    found = list(_alternatives(structure.type_info(annotation)))
    for step in steps:
        found = [one for kind in found for inner in _inside(kind, step) for one in _alternatives(inner)]
    told = [_words(kind) for kind in found]
    if not any(told):
        return None
    plain = [_PLAIN.get(type(kind), "an array") for kind in found]
    return " or ".join(dict.fromkeys(words or other for words, other in zip(told, plain, strict=True)))


def _alternatives(kind: structure.Type) -> Iterator[structure.Type]:
    if isinstance(kind, structure.Metadata):
        yield from _alternatives(kind.type)
    elif isinstance(kind, structure.UnionType):
        # Last what need not be named first.
        yield from sorted(kind.types, key=lambda one: isinstance(one, structure.NoneType))
    else:
        yield kind


def _inside(kind: structure.Type, step: int | str | None) -> Iterator[structure.Type]:
    if isinstance(kind, _OBJECTS):
        yield from (field.type for field in kind.fields if field.encode_name == step)
    elif isinstance(kind, structure.DictType):
        yield kind.value_type
    elif isinstance(kind, structure.TupleType):
        yield from kind.item_types[step : step + 1] if isinstance(step, int) else ()
    elif isinstance(kind, structure.CollectionType):
        yield kind.item_type


def _words(kind: structure.Type) -> str | None:
    if isinstance(kind, _OBJECTS):
        return f"{_full_name(kind.cls)} ({_fields(kind.fields)})"
    if isinstance(kind, structure.EnumType):
        return f"{_full_name(kind.cls)} ({_one_of(f'{one.value!r} for {one.name}' for one in kind.cls)})"
    if isinstance(kind, structure.LiteralType):
        return _one_of(map(repr, kind.values))
    return _FORMS.get(type(kind))


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _fields(fields: Iterable[structure.Field]) -> str:
    needed = [field.encode_name for field in fields if field.required]
    others = [field.encode_name for field in fields if not field.required]
    told = f"an object with {_listed(needed)}" if needed else "an object"
    return f"{told}, and perhaps {_listed(others)}" if others else told


def _one_of(values: Iterable[str]) -> str:
    return f"one of {_listed(list(values))}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
