"""Whom to tell of buried jobs, what has been told, and what is to be told now: values and decisions."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from shlex import quote
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.engine import Engine, Group
from penstock.model.durations import Duration, milliseconds, spell
from penstock.model.errors import TaskInvalid
from penstock.model.job import QUEUE_NAME, QUEUE_NAME_IN_WORDS
from penstock.remedies import JobGroup

__all__ = [
    "ALERTS",
    "DEFAULT_EVERY",
    "NOTHING_TOLD",
    "Alert",
    "Telltale",
    "Told",
    "after_failure",
    "after_sending",
    "begun",
    "is_due",
    "may_send",
    "read_alert",
    "read_alerts",
    "read_states",
    "state_in",
    "state_out",
    "write_message",
]

#: The kind of the shared values in which it stands what has been told.
ALERTS = "alerts"
#: How long the jobs of a group that were buried since the last message about it wait for the next one.
DEFAULT_EVERY = "15m"
#: Least time between two messages of one alert.
APART_MS = 60_000
#: For so long nobody else sends what a worker is about to send; if it has not said by then that it did, another does.
SENDING_MS = 120_000
#: What is told of a message that could not be sent, and how long it is waited before it is tried again.
LONGEST_ERROR = 300
SHORTEST_BACKOFF_MS, LONGEST_BACKOFF_MS = 10_000, 600_000
#: Of so many groups it is remembered when they were told.
MOST_TOLD = 500
#: So many groups one message tells of; the others are counted.
MOST_IN_MESSAGE = 10
LONGEST_REASON = 300
#: A time that lies further ahead than this was written by a clock that was wrong.
_SKEW_MS = 60_000

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31})://.")


class Alert(Struct, frozen=True):
    """Somebody who is told of buried jobs, by a URL as apprise knows them; it may hold passwords, and is never shown.

    Attributes:
        queue, task: only of jobs of these; None for all.
        every_ms: how long further jobs of a group wait for the next message about it.
    """

    url: str
    queue: str | None = None
    task: str | None = None
    every_ms: int = 900_000
    name: str = ""

    @property
    def id(self) -> str:
        """What tells it from the others, in all workers."""
        import hashlib  # slow to import, and seldom needed

        alike = "\0".join((self.url, self.queue or "", self.task or ""))
        return hashlib.sha256(alike.encode("utf-8", "replace")).hexdigest()[:16]

    @property
    def label(self) -> str:
        """How it is named where its URL must not be seen."""
        return self.name or f"{self.url.partition('://')[0].lower()}-{self.id[:6]}"

    def __repr__(self) -> str:
        return f"<Alert {self.label}>"

    def concerns(self, group: JobGroup) -> bool:
        """Say whether it tells of such jobs; those that a person buried that person knows of."""
        return self.queue in (None, group.queue) and self.task in (None, group.task) and group.error.kind != "buried"


def read_alert(
    url: object, queue: object = None, task: object = None, every: Duration = DEFAULT_EVERY, name: object = None
) -> Alert:
    """Give an alert of what a person wrote.

    Raises:
        TaskInvalid: it cannot be one; the URL is not shown.
        DurationInvalid: `every` is no duration.
    """
    if not isinstance(url, str) or not _SCHEME.match(url.strip()):
        raise TaskInvalid(
            "An alert was given something that is no URL, which is not shown as it may hold a password; "
            "give one as apprise knows them, such as mailto://user:password@example.org."
        )
    if queue is not None and (not isinstance(queue, str) or not re.fullmatch(QUEUE_NAME, queue)):
        raise TaskInvalid(f"An alert has queue={queue!r}, which is no queue name; use {QUEUE_NAME_IN_WORDS}.")
    for option, value in (("task", task), ("name", name)):
        if value is not None and (not isinstance(value, str) or not value.isprintable() or not value):
            raise TaskInvalid(f"An alert has {option}={value!r}, which is no text; give a name.")
    every_ms = milliseconds(every)
    if every_ms < 1000:
        raise TaskInvalid(f"An alert has every={every!r}; give at least 1 s, as '15m'.")
    return Alert(url.strip(), queue, task, every_ms, name or "")  # type: ignore[arg-type]  # looked at above


_FIELDS = ("url", "queue", "task", "every", "name")


def read_alerts(value: object) -> tuple[Alert, ...]:
    """Read a setting: URLs in one text with blanks between them, or a list of URLs and tables.

    >>> read_alerts("json://localhost/hook slack://a/b/c")[1].label[:6]
    'slack-'

    Raises:
        TaskInvalid, DurationInvalid: an entry cannot be an alert.
    """
    entries: Any = value.split() if isinstance(value, str) else value
    if not isinstance(entries, list | tuple):
        raise TaskInvalid("it is no list of URLs; give URLs with blanks between them, or a list of URLs or tables.")
    found: list[Alert] = []
    for entry in entries:
        if isinstance(entry, Alert):
            found.append(entry)
            continue
        fields = entry if isinstance(entry, Mapping) else {"url": entry}
        unknown = sorted(map(str, fields.keys() - set(_FIELDS)))
        if unknown:
            named = "a URL" if "://" in unknown[0] else repr(unknown[0])
            raise TaskInvalid(f"an entry names {named}, which an alert has not; it has {', '.join(_FIELDS)}.")
        found.append(read_alert(**{"url": None, **fields}))
    return tuple({alert.id: alert for alert in found}.values())


# -- what has been told -----------------------------------------------------------------------------------------------


class Told(Struct, frozen=True, array_like=True):
    """What was told of a group: of all that was buried until then, when, and how many were in it."""

    until_ms: int
    at_ms: int
    count: int


class Telltale(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What all workers know of one alert.

    Attributes:
        label, queue, task: of the alert, for who does not know it.
        told: by group.
        baseline_ms: what was buried until then has been told of, where `told` no longer says so.
        sender, sending_until_ms: who is about to send a message, and until when nobody else does.
        sent_ms, sent: when the last message was sent, and its first line.
        failures, failed_ms, error, again_ms: how often in a row no message could be sent; when last, why, and when it
            is tried again.
    """

    label: str = ""
    queue: str | None = None
    task: str | None = None
    told: dict[str, Told] = {}
    baseline_ms: int = 0
    sender: str = ""
    sending_until_ms: int = 0
    sent_ms: int = 0
    sent: str = ""
    failures: int = 0
    failed_ms: int = 0
    error: str = ""
    again_ms: int = 0


NOTHING_TOLD = Telltale()

state_out = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Telltale).decode


def state_in(stored: bytes | None) -> Telltale:
    """Read what has been told; what cannot be read is told again."""
    try:
        return NOTHING_TOLD if stored is None else _decode(stored)
    except ValueError:
        return NOTHING_TOLD


def read_states(engine: Engine) -> dict[str, Telltale]:
    """Read what is known of each alert that a worker has used, by its id."""
    return {id: state_in(stored) for id, stored in engine.shared(ALERTS).items()}


# -- what is to be told -----------------------------------------------------------------------------------------------


def is_due(alert: Alert, state: Telltale, group: Group, now_ms: int) -> bool:
    """Say whether there is news of a group, and its last message is long enough ago."""
    told = state.told.get(group.id)
    if told is None:
        return group.last_ms > state.baseline_ms
    has_news = group.last_ms > told.until_ms or group.count > told.count
    return has_news and not _holds(told.at_ms, alert.every_ms, now_ms)


def may_send(state: Telltale, now_ms: int) -> bool:
    """Say whether an alert may send a message now: nobody else does, and the last one is long enough ago."""
    sending = now_ms < state.sending_until_ms <= now_ms + SENDING_MS + _SKEW_MS
    backing_off = now_ms < state.again_ms <= now_ms + LONGEST_BACKOFF_MS + _SKEW_MS
    return not (sending or backing_off or _holds(state.sent_ms, APART_MS, now_ms))


def _holds(since_ms: int, span_ms: int, now_ms: int) -> bool:
    return since_ms <= now_ms + _SKEW_MS and now_ms < since_ms + span_ms


def begun(alert: Alert, state: Telltale, sender: str, now_ms: int) -> Telltale:
    """Give what is known while a worker sends a message."""
    return replace(
        state,
        label=alert.label,
        queue=alert.queue,
        task=alert.task,
        sender=sender,
        sending_until_ms=now_ms + SENDING_MS,
    )


def after_sending(
    alert: Alert, state: Telltale, sent: Sequence[Group], all_groups: Iterable[Group], title: str, now_ms: int
) -> Telltale:
    """Give what is known when a message about groups was sent."""
    counts = {group.id: group.count for group in all_groups}
    told = {
        id: replace(one, count=min(one.count, counts.get(id, 0)))
        for id, one in state.told.items()
        if id in counts or _holds(one.at_ms, alert.every_ms, now_ms)
    }
    told |= {group.id: Told(group.last_ms, now_ms, group.count) for group in sent}
    told, baseline_ms = _bounded(told, state.baseline_ms)
    return Telltale(
        label=alert.label,
        queue=alert.queue,
        task=alert.task,
        told=told,
        baseline_ms=baseline_ms,
        sent_ms=now_ms,
        sent=title,
    )


def _bounded(told: dict[str, Told], baseline_ms: int) -> tuple[dict[str, Told], int]:
    """Forget what was buried longest ago, of which all is told by now."""
    newest = sorted(told, key=lambda id: told[id].until_ms, reverse=True)
    dropped = newest[MOST_TOLD:]
    baseline_ms = max([baseline_ms, *(told[id].until_ms for id in dropped)])
    return {id: told[id] for id in newest[:MOST_TOLD]}, baseline_ms


def after_failure(state: Telltale, error: str, now_ms: int) -> Telltale:
    """Give what is known when a message could not be sent: nothing is told, and it is tried again, ever more seldom."""
    pause_ms = min(LONGEST_BACKOFF_MS, SHORTEST_BACKOFF_MS << min(state.failures, 10))
    return replace(
        state,
        sender="",
        sending_until_ms=0,
        failures=state.failures + 1,
        failed_ms=now_ms,
        error=error[:LONGEST_ERROR],
        again_ms=now_ms + pause_ms,
    )


# -- messages ---------------------------------------------------------------------------------------------------------


def write_message(groups: Collection[JobGroup], store: str) -> tuple[str, str]:
    """Give title and text of a message about groups, the largest first.

    Args:
        store: its URL, without a password.
    """
    largest = sorted(groups, key=lambda group: (-group.count, group.id))
    jobs = sum(group.count for group in largest)
    tasks = sorted({group.task for group in largest})
    of = f"of {_tame(tasks[0])}" if len(tasks) == 1 else f"of {len(tasks)} tasks"
    title = f"{jobs:,} {'job' if jobs == 1 else 'jobs'} {of} {'is' if jobs == 1 else 'are'} buried"
    parts = ["\n".join(_told_of(group)) for group in largest[:MOST_IN_MESSAGE]]
    if len(largest) > MOST_IN_MESSAGE:
        parts.append(f"And {len(largest) - MOST_IN_MESSAGE} more groups; see `penstock jobs groups`.")
    parts.append(f"Store: {store}")
    return title, "\n\n".join(parts)


def _told_of(group: JobGroup) -> Iterable[str]:
    error = group.error
    reason = " ".join(str(error).removeprefix("penstock.model.errors.Bury: ").split())
    reason = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}..."
    yield _tame(f"{group.count:,} of {group.task} in queue {group.queue}: {reason}")
    since = spell(max(0, group.last_ms - group.first_ms) / 1000)
    where = f"raised in {_tame(error.where)}; " if error.where else ""
    yield f"  {where}" + (f"buried within {since}" if group.count > 1 else "buried once")
    yield f"  penstock jobs show {quote(_tame(group.sample))}"
    yield f"  penstock jobs kick --group {quote(_tame(group.id))}"


def _tame(text: str) -> str:
    """Leave out what cannot be printed: whoever reads it shall see what a job wrote, and not obey it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
