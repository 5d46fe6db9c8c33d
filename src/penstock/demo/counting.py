"""What is counted of a source file, and how the counts of many add up. Jobs and the plain computation both use it."""

import ast
import io
import tokenize
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

__all__ = ["UNREADABLE", "Balance", "FileCount", "Totals", "balance", "count", "read_source", "total"]

#: What `read_source` raises; an encoding that is unknown or announced falsely is a SyntaxError.
UNREADABLE = (OSError, UnicodeDecodeError, SyntaxError)

_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class FileCount(Struct, frozen=True):
    """What one file holds.

    Attributes:
        definitions: functions and classes.
        compressed: bytes after compression.
        broken: whether it is no valid Python, so that nothing is known of its definitions.
    """

    path: str
    lines: int
    definitions: int
    compressed: int
    broken: bool = False


class Totals(Struct, frozen=True):
    """The sums of many counts.

    Attributes:
        unreadable: files of which nothing could be counted.
    """

    counted: int = 0
    unreadable: int = 0
    lines: int = 0
    definitions: int = 0
    compressed: int = 0
    broken: int = 0

    @property
    def files(self) -> int:
        return self.counted + self.unreadable


class Balance(Struct, frozen=True):
    """Where two computations differ, by path.

    Attributes:
        lost: asked for, but not counted by jobs.
        doubled: counted by more jobs than asked for.
        different: counted by both, but not alike.
    """

    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    different: tuple[str, ...]

    @property
    def even(self) -> bool:
        return not (self.lost or self.doubled or self.different)


def read_source(path: Path) -> str:
    """Read a file in the encoding that it announces, UTF-8 if none.

    Raises:
        OSError, UnicodeDecodeError, SyntaxError: it cannot be read; together `UNREADABLE`.
    """
    data = path.read_bytes()
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data.decode(encoding)


def count(path: Path) -> FileCount:
    """Count what one file holds.

    Raises:
        OSError, UnicodeDecodeError, SyntaxError: it cannot be read; together `UNREADABLE`.
    """
    source = read_source(path)
    definitions = _definitions(source)
    return FileCount(
        path=str(path),
        lines=len(source.splitlines()),
        definitions=definitions or 0,
        compressed=len(zlib.compress(source.encode("utf-8", "surrogatepass"))),
        broken=definitions is None,
    )


def _definitions(source: str) -> int | None:
    try:
        tree = ast.parse(source)
    except _UNPARSABLE:
        return None
    return sum(isinstance(node, _DEFINITIONS) for node in ast.walk(tree))


def total(counts: Iterable[FileCount], *, unreadable: int) -> Totals:
    """Add counts up."""
    several = list(counts)
    return Totals(
        counted=len(several),
        unreadable=unreadable,
        lines=sum(one.lines for one in several),
        definitions=sum(one.definitions for one in several),
        compressed=sum(one.compressed for one in several),
        broken=sum(one.broken for one in several),
    )


def balance(asked: Iterable[str], counts: Sequence[FileCount], plain: Sequence[FileCount]) -> Balance:
    """Compare what was asked for with what came back, and that with the plain computation."""
    wanted, found = Counter(asked), Counter(one.path for one in counts)
    expected = {one.path: one for one in plain}
    return Balance(
        lost=tuple(sorted((wanted - found).elements())),
        doubled=tuple(sorted((found - wanted).elements())),
        different=tuple(sorted({one.path for one in counts if expected.get(one.path, one) != one})),
    )
