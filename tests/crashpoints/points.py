"""Named points at which a process kills itself: before and after each call of the store, and each effect of a job.

At each point one process dies, the first that comes there; whoever comes later passes. So a run in which everybody
works until no point is left has killed at each of them once, however the processes interleave. In pairs, a process
dies at each point once after each other point at which the last one died: what mends a crash is itself struck.
"""

import functools
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from penstock.engines.open import open_engine
from tests.torture.records import folder, store_url

#: A file with the names of the points at which processes shall die; each reads it when it starts.
ARMED = "armed"
#: Set where they shall die in pairs; not at every one that they could, so that they also come to the later points.
IN_PAIRS, ODDS_IN_PAIRS = "CRASHPOINTS_IN_PAIRS", 0.3
#: The folder in which each point that was hit has a file, and the point that was hit last.
HIT, LAST = "points", "last-point"

PROCESS, CHILD, SUPERVISOR, PRODUCER, OPERATOR = "process", "child", "supervisor", "producer", "operator"


def _around(role: str, *acts: str) -> tuple[str, ...]:
    return tuple(f"{role}: {when} {act}" for act in acts for when in ("before", "after"))


_IN_JOB = (
    "job",
    "begin of a step",
    "step",
    "record of a step",
    "begin of a side effect",
    "side effect",
    "record of a side effect",
    "add by a job",
)
_ALTERATIONS = ("cancel", "kick", "upgrade", "edit", "reschedule", "bury", "delete")

EVERYWHERE = (
    *_around(PROCESS, "exchange that delivers", "exchange that only claims", "note", *_IN_JOB),
    f"{PROCESS}: after exchange that delivers and claims",
    *_around(CHILD, *_IN_JOB),
    *_around(SUPERVISOR, "enrol", "renew", "renew that reports deaths", "tend", "exchange that settles"),
    f"{SUPERVISOR}: after tend that takes over",
    *_around(PRODUCER, "add of one", "add of many"),
    *_around(OPERATOR, *_ALTERATIONS),
)
WITHIN_TRANSACTIONS = _around(PRODUCER, "add within", "commit of what was added within")


def points_of(engine: str) -> tuple[str, ...]:
    """Give the points on a kind of store; a Redis has no transactions of others."""
    return EVERYWHERE if engine == "redis" else EVERYWHERE + WITHIN_TRANSACTIONS


_role = ""


def role_of_worker() -> str | None:
    """Tell a worker's process and its children, which import the application, from whoever else does."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = "" if spec is None else spec.name
    return {"penstock.worker.process": PROCESS, "penstock.worker.child": CHILD}.get(name)


def play(role: str) -> None:
    """Let this process pass the points of a role from now on, and die at those that nobody has hit."""
    global _role
    _role = role
    _watch(type(open_engine(store_url())))


def reach(when: str, act: str) -> None:
    """Die here, if this process is the first that comes here."""
    point = f"{_role}: {when} {act}"
    if point not in _armed() or (IN_PAIRS in os.environ and random.random() > ODDS_IN_PAIRS):
        return
    try:
        os.close(os.open(hit_file(folder(), point, _last()), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    if IN_PAIRS in os.environ:
        (folder() / LAST).write_text(point)
    while True:
        os.kill(os.getpid(), signal.SIGKILL)


@functools.cache
def _armed() -> frozenset[str]:
    return frozenset((folder() / ARMED).read_text().splitlines())


def _last() -> str:
    """Give the point at which the last process died; empty where that is not asked, or nobody has died yet."""
    path = folder() / LAST
    return path.read_text() if IN_PAIRS in os.environ and path.exists() else ""


def hit_file(folder: Path, point: str, after: str = "") -> Path:
    return folder / HIT / (f"{after}+{point}" if after else point).replace(" ", "_")


# -- calls of the store -----------------------------------------------------------------------------------------------


def _watch(engine: Any) -> None:
    """Put points around the verbs of an engine's class."""
    for verb, name in _VERBS.items():
        if hasattr(engine, verb):
            setattr(engine, verb, _pointed(getattr(engine, verb), name))


def _pointed(verb: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
    @functools.wraps(verb)
    def pointed(self: Any, *given: Any, **named: Any) -> Any:
        act = name(*given, **named)
        reach("before", act)
        answer = verb(self, *given, **named)
        reach("after", act)
        for special in _seen_in(answer, act):
            reach("after", special)
        return answer

    return pointed


def _seen_in(answer: Any, act: str) -> Sequence[str]:
    """Name what only the answer tells of a call."""
    if act == "exchange that delivers" and answer.claims:
        return (f"{act} and claims",)
    if act == "tend" and answer.taken:
        return (f"{act} that takes over",)
    return ()


def _exchange(_process: object, _beat: int, changes: Sequence[object], want: object) -> str:
    if want is None and threading.current_thread().name.startswith("penstock") and _role == SUPERVISOR:
        return "exchange that settles"
    return "exchange that delivers" if changes else "exchange that only claims"


def _renew(_tender: object, _leases: object, deaths: Sequence[object] = ()) -> str:
    return "renew that reports deaths" if deaths else "renew"


def _add(requests: Sequence[Any]) -> str:
    if requests[0].parent is not None:
        return "add by a job"
    return "add of one" if sum(len(request.jobs) for request in requests) == 1 else "add of many"


def _ledger(verb: str) -> Callable[..., str]:
    def name(_id: object, _fence: object, scope: str, *_: object) -> str:
        return f"{verb} of a {'step' if scope.startswith('step:') else 'side effect'}"

    return name


_VERBS: dict[str, Callable[..., str]] = {
    "enrol": lambda *_: "enrol",
    "renew": _renew,
    "tend": lambda *_: "tend",
    "exchange": _exchange,
    "note": lambda *_: "note",
    "begin": _ledger("begin"),
    "record": _ledger("record"),
    "add": _add,
    "add_within": lambda *_: "add within",
    "alter": lambda _ids, alteration: type(alteration).__name__.lower(),
}
