"""What people write on the command line: JSON arguments, durations, moments, ids."""

import json
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click

from penstock.model.codec import parse_json
from penstock.model.durations import seconds
from penstock.model.errors import DurationInvalid, PayloadInvalid
from penstock.model.job import JobId

__all__ = ["duration", "job_id", "moment", "moment_or_duration", "read_call", "read_ids", "read_json"]

_NAMED = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)
_BARE = re.compile(r"[^\[{\"]", re.DOTALL)


def duration(value: str) -> float:
    """Read seconds, or text such as 90s, 5m, 1h30m."""
    try:
        return seconds(value)
    except DurationInvalid as error:
        raise click.BadParameter(str(error)) from None


def job_id(value: str) -> JobId:
    """Read the id of a job, which need not exist any more."""
    import uuid

    try:
        return JobId(str(uuid.UUID(value)))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no id of a job; give one as `penstock jobs list` shows it.") from None


def moment(value: str) -> datetime:
    """Read a date and time in ISO 8601; without a zone it is local time."""
    try:
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is no moment; write 2030-01-31T08:00 (local time) or 2030-01-31T08:00Z."
        ) from None


def moment_or_duration(value: str) -> datetime | float:
    """Read what begins with a year as a moment, all else as a duration."""
    return moment(value) if re.match(r"\d{4}-", value) else duration(value)


def read_call(words: Sequence[str], ctx: click.Context) -> tuple[list[Any], dict[str, Any]]:
    """Read the arguments of a task: JSON by position, `name=JSON` by name.

    Raises:
        click.UsageError: a word is no JSON; shows how to quote it.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        named = _NAMED.fullmatch(word)
        if named is None:
            _refuse_options(word, ctx)
            args.append(read_json(word, f"Argument {len(args) + 1}"))
        elif named[1] in kwargs:
            raise click.UsageError(f"The argument {named[1]!r} is given twice.", ctx)
        else:
            kwargs[named[1]] = read_json(named[2], f"Argument {named[1]!r}", f"{named[1]}=")
    return args, kwargs


def read_json(word: str, what: str, before: str = "") -> Any:
    """Read one word as JSON.

    Args:
        before: what stands before the JSON in the word, to show the whole word quoted.
    """
    try:
        return parse_json(word, what)
    except PayloadInvalid as error:
        if "is not JSON" not in str(error) or not _BARE.match(word or " "):
            raise click.UsageError(f"{error} Given: {word!r}.") from None
        quoted = shlex.quote(before + json.dumps(word, ensure_ascii=False))
        raise click.UsageError(
            f"{what} is {word!r}, which is not JSON. "
            f"A text needs quotes of its own, and those need quotes in the shell: {quoted}"
        ) from None


def read_ids(words: Iterable[str]) -> list[str]:
    """Give ids in order, each once; the word `-` stands for those on stdin."""
    found: dict[str, None] = {}
    for word in words:
        found.update(dict.fromkeys(sys.stdin.read().split() if word == "-" else [word]))
    return list(found)


def _refuse_options(word: str, ctx: click.Context) -> None:
    """A word that begins with a dash is a negative number or a mistyped option."""
    if re.match(r"--?[A-Za-z]", word):
        import difflib

        known = [name for param in ctx.command.params for name in param.opts if name.startswith("--")]
        option = word.partition("=")[0]
        raise click.NoSuchOption(option, possibilities=difflib.get_close_matches(option, known), ctx=ctx)
