"""What commands write: tables and pages for people, one JSON document for programs, questions."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Union

import click
import msgspec
from msgspec import Struct

from penstock.engine import MOST_AT_ONCE
from penstock.model.durations import spell
from penstock.model.job import ErrorInfo
from penstock.model.states import State

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "Cell",
    "Column",
    "ago",
    "as_json",
    "brief",
    "confirm",
    "console",
    "microseconds",
    "moment",
    "number",
    "progress_bar",
    "short",
    "show",
    "show_table",
    "size",
    "state_text",
    "styled",
    "tame",
    "write_json",
]

_STATE_STYLES: Final = {
    State.BLOCKED: "magenta",
    State.SCHEDULED: "cyan",
    State.READY: "blue",
    State.RUNNING: "yellow",
    State.SUCCEEDED: "green",
    State.CANCELLED: "dim",
    State.EXPIRED: "dim",
    State.BURIED: "bold red",
}

Cell = Union[str, "Text"]

#: A column that may fold keeps so many characters; between two columns stand so many spaces.
_NARROWEST, _GAP = 16, 2

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

#: Nothing folds lines that go to a file or a pipe.
_UNBOUNDED = 10_000

as_json = click.option("--json", "as_json", is_flag=True, help="Write one JSON document.")


def console(stderr: bool = False) -> "Console":
    """Give where people's output goes: coloured on a terminal unless NO_COLOR is set, never folded in a pipe."""
    import os

    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    screen = Screen(stderr=stderr, highlight=False, soft_wrap=False)
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = _UNBOUNDED
    return screen


class Column(Struct, frozen=True):
    """A column of a table.

    Attributes:
        whole: never broken, as ids are.
        clipped: ends in … where there is no room; others fold.
    """

    header: str
    whole: bool = False
    right: bool = False
    clipped: bool = False

    def narrowest(self, widths: Sequence[int]) -> int:
        """Say how narrow it may become, given how wide its cells would like to be."""
        natural = max(len(self.header), *widths)
        return natural if self.whole else min(natural, _NARROWEST)


def show_table(columns: Sequence[str | Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Print rows as a table, or one below the other where the terminal is too narrow for a table."""
    described = [Column(one) if isinstance(one, str) else one for one in columns]
    needed = sum(column.narrowest([len(row[place]) for row in rows]) + _GAP for place, column in enumerate(described))
    if needed - _GAP <= console().width:
        show(_as_table(described, rows))
    else:
        for row in rows:
            show(_as_record(described, row))


def _as_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> "Table":
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        made.add_column(
            column.header,
            no_wrap=column.whole,
            overflow="fold",
            justify="right" if column.right else "left",
            min_width=column.narrowest([len(row[place]) for row in rows]),
        )
    for row in rows:
        made.add_row(
            *(_clipped(cell) if column.clipped else _text(cell) for column, cell in zip(columns, row, strict=True))
        )
    return made


def _clipped(cell: Cell) -> "Text":
    text = _text(cell)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _as_record(columns: Sequence[Column], row: Sequence[Cell]) -> "Group":
    """Write one row as its first cell and, below, what else there is with its headings."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    lines = [Text(), Text()]
    for column, cell in zip(columns[1:], row[1:], strict=True):
        if len(cell):
            line = lines[column.clipped]
            line.append("  " if line else "").append(f"{column.header} ", "dim").append_text(_text(cell))
    head = _text(row[0])
    head.stylize("bold")
    return Group(head, *(Padding(line, (0, 0, 0, 4)) for line in lines if line))


def _text(cell: Cell) -> "Text":
    from rich.text import Text

    return Text(tame(cell)) if isinstance(cell, str) else cell


def tame(text: str, keep: str = "") -> str:
    """Spell out control characters, so that what a job wrote cannot steer the terminal of who reads it.

    >>> tame("red: \\x1b[31m")
    'red: \\\\x1b[31m'
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def show(rendered: Any) -> None:
    """Print on stdout; what goes to a file or a pipe has no spaces at the ends of its lines."""
    screen = console()
    if screen.is_terminal:
        screen.print(rendered)
        return
    with screen.capture() as captured:
        screen.print(rendered)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def brief(error: ErrorInfo) -> str:
    """Write an error on one line; what steers a job is told by its reason alone."""
    name = error.type.removeprefix("builtins.")
    if name.startswith("penstock.model.errors."):
        name = ""
    return " ".join(f"{name or error.kind}: {error.message}".removesuffix(": ").split())


def short(id: str) -> str:
    """Give the first digits of an id of a process or worker, which tell it from the few others."""
    return id[:8]


def number(count: int, thing: str) -> str:
    """Write a count with its noun.

    >>> number(1, "job"), number(2000, "job"), number(0, "fault")
    ('1 job', '2,000 jobs', '0 faults')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def write_json(document: Any, err: bool = False) -> None:
    """Write one JSON document on stdout, or on stderr where stdout is taken."""
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2), err=err)


def styled(text: str, style: str) -> "Text":
    from rich.text import Text

    return Text(text, style=style)


def state_text(state: State) -> "Text":
    return styled(str(state), _STATE_STYLES[state])


def moment(at_ms: int | None) -> str | None:
    """Write a time as ISO 8601 in UTC, to the millisecond."""
    if at_ms is None:
        return None
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ago(at_ms: int | None, now_ms: int) -> str:
    """Write how long something is past or ahead, as `5m` or `in 1h30m`."""
    if at_ms is None:
        return ""
    return spell((now_ms - at_ms) / 1000) if at_ms <= now_ms else f"in {spell((at_ms - now_ms) / 1000)}"


def microseconds(us: float) -> str:
    """Write a short time for people.

    >>> microseconds(12.3), microseconds(4500)
    ('12 µs', '4.5 ms')
    """
    return f"{us:,.0f} µs" if us < 1000 else f"{us / 1000:,.1f} ms"


def size(count: int) -> str:
    """Write a number of bytes for people.

    >>> size(1536)
    '1.5 KiB'
    """
    if count < 1024:
        return f"{count} bytes"
    number = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        if number < 1024 or unit == "GiB":
            break
    return f"{number:,.1f} {unit}"


def confirm(question: str, yes: bool) -> None:
    """Ask on stderr before something that cannot be undone; `yes` was said already.

    Raises:
        click.ClickException: the answer was no, or there is nobody to ask.
    """
    if yes:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            click.echo(err=True)  # the question stands there without an answer
            raise click.ClickException("Nobody answers here; give --yes to go on without asking.") from None
        raise
    if not agreed:
        raise click.ClickException("Nothing was changed.")


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal when there is more than one step."""
    screen = console(stderr=True)
    if total <= MOST_AT_ONCE or not screen.is_terminal:
        yield lambda _: None
        return
    from rich.progress import Progress

    with Progress(console=screen, transient=True) as progress:
        bar = progress.add_task(title, total=total)
        yield lambda step: progress.advance(bar, step)
