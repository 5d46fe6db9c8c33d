"""Writes down what is asked of a store and what it answers, by whoever speaks to it in this process.

Each call is two lines: what is asked, before it is, and what came of it. A call whose process was killed has one.
"""

import functools
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from penstock.engine import Added, AddRequest, Altered, Answer, Begun, Death, Note, Renewed, Tended, WorkerInfo
from penstock.engine import Taken as TakenOver
from penstock.model.errors import EngineUnavailable, LeaseLost, PenstockError, UniqueConflict
from penstock.model.job import Change, Claim, Fence, JobId, NewJob, ProcessId
from tests.histories.history import (
    Act,
    Add,
    Began,
    Bore,
    Changed,
    Claimed,
    Dead,
    Did,
    Evicted,
    Leased,
    Noted,
    Outcome,
    Recorded,
    Taken,
    Voided,
)
from tests.histories.history import Altered as AlteredByHand

FOLDER = "history"

Told = tuple[Outcome, Act]


class Asked(Struct, frozen=True, tag="ask", omit_defaults=True):
    """What is asked. Calls of a process with the same beat are one, whose effect may have come with the first."""

    call: int
    t0: int
    process: str
    acts: list[Act]
    beat: int = 0


class Answered(Struct, frozen=True, tag="answer", omit_defaults=True):
    """All that is known of a call's acts; those that it added were not asked for by name.

    Attributes:
        error: what was raised in place of an answer.
    """

    call: int
    t1: int
    told: list[Told]
    error: str = ""


class Log:
    """One file of lines for each process that writes, so that no line is torn but the last one of a process."""

    def __init__(self, folder: Path, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._folder, self._now_ns = folder / FOLDER, now_ns
        self._calls = itertools.count(1)
        self._encode = msgspec.json.Encoder().encode
        self._opened: tuple[int, int] | None = None

    def ask(self, process: str, acts: list[Act], beat: int = 0) -> int:
        call = next(self._calls)
        self._write(Asked(call, self._now_ns(), process, acts, beat))
        return call

    def answer(self, call: int, told: list[Told], error: str = "") -> None:
        self._write(Answered(call, self._now_ns(), told, error))

    def tell(self, process: str, act: Act) -> None:
        """Write down something that happened here and now."""
        self.answer(self.ask(process, []), [("ok", act)])

    def _write(self, line: Asked | Answered) -> None:
        os.write(self._descriptor(), self._encode(line) + b"\n")

    def _descriptor(self) -> int:
        if self._opened is None or self._opened[0] != os.getpid():
            self._folder.mkdir(exist_ok=True)
            path = self._folder / f"{os.getpid()}-{time.monotonic_ns()}.jsonl"
            self._opened = (os.getpid(), os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
        return self._opened[1]


def watch(engine: Any, log: Log) -> None:
    """Let an engine, or all of a class, tell what is asked of it."""
    for name, verb in _VERBS.items():
        setattr(engine, name, _watched(getattr(engine, name), isinstance(engine, type), verb(log)))


def _watched(original: Callable[..., Any], has_self: bool, verb: "Verb") -> Callable[..., Any]:
    @functools.wraps(original)
    def watched(*given: Any) -> Any:
        return verb.call(functools.partial(original, *given), *given[has_self:])

    return watched


class Verb:
    """How the calls of one verb are told."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def call(self, do: Callable[[], Any], *given: Any) -> Any:
        process, acts = self.asked(*given)
        call = self._log.ask(process, acts, self.beat_of(*given))
        try:
            answer = do()
        except EngineUnavailable as error:
            self._log.answer(call, [("unknown", act) for act in acts], repr(error))
            raise
        except Exception as error:
            void: list[Told] = [("ok", Voided(process))] if isinstance(error, LeaseLost) else []
            self._log.answer(call, [*void, *(("fail", act) for act in acts)], repr(error))
            raise
        self._log.answer(call, self.told(acts, answer, *given))
        return answer

    def asked(self, *given: Any) -> tuple[str, list[Act]]:
        """Give who asks, and for what."""
        raise NotImplementedError

    def beat_of(self, *_: Any) -> int:
        """Give the number of the call, if it may be repeated as it was."""
        return 0

    def told(self, acts: list[Act], answer: Any, *given: Any) -> list[Told]:
        """Give what became of that, and what came of it besides."""
        raise NotImplementedError


class _Enrol(Verb):
    def asked(self, worker: WorkerInfo, processes: Sequence[ProcessId]) -> tuple[str, list[Act]]:
        return worker.id, [Leased(process, worker.lease_ms) for process in processes]

    def told(self, acts: list[Act], answer: str, *_: Any) -> list[Told]:  # noqa: ARG002
        return [("ok", act) for act in acts]


class _Add(Verb):
    def asked(self, requests: Sequence[AddRequest]) -> tuple[str, list[Act]]:
        return str(os.getpid()), [act for request in requests for act in _of(request)]

    def told(
        self, _: list[Act], answer: list[list[Added] | PenstockError], requests: Sequence[AddRequest]
    ) -> list[Told]:
        return [told for request, one in zip(requests, answer, strict=True) for told in _answered(request, one)]


def _of(request: AddRequest) -> list[Act]:
    adds: list[Act] = [_added(job, request.jobs[0].id) for job in request.jobs]
    return adds if request.parent is None else [*adds, Bore(*request.parent)]


def _added(job: NewJob, request: JobId) -> Add:
    details, unique = job.details, job.details.unique
    return Add(
        job.id,
        request,
        job.queue,
        "" if unique is None else unique.key,
        "" if unique is None else unique.until,
        "" if unique is None else unique.clash,
        details.idempotency_key or "",
        job.expires_ms is not None or job.expires_in_ms is not None,
        job.id,
    )


def _answered(request: AddRequest, answer: list[Added] | PenstockError) -> list[Told]:
    acts = _of(request)
    if isinstance(answer, PenstockError):
        return [("fail", _in_the_way(act, answer)) for act in acts]
    ids = [added.id for added in answer]
    told = [replace(act, told=id) for act, id in zip(acts, ids, strict=False)]
    return [("ok", act) for act in [*told, *acts[len(told) :]]]


def _in_the_way(act: Act, error: PenstockError) -> Act:
    is_meant = isinstance(error, UniqueConflict) and isinstance(act, Add) and act.key == error.key
    return replace(act, told=error.holder) if is_meant else act


class _Exchange(Verb):
    """The store names refused changes by their jobs: of two for one job nobody knows which it means."""

    def asked(self, process: ProcessId, _: int, changes: Sequence[Change], *__: Any) -> tuple[str, list[Act]]:
        return process, [_changed(change) for change in changes]

    def beat_of(self, _: ProcessId, beat: int, *__: Any) -> int:
        return beat

    def told(self, acts: list[Act], answer: Answer, *_: Any) -> list[Told]:
        several = Counter(act.job for act in acts)  # type: ignore[union-attr]
        refused: dict[str, Outcome] = {id: "fail" if several[id] == 1 else "unknown" for id in answer.late}
        changes: list[Told] = [(refused.get(act.job, "ok"), act) for act in acts]  # type: ignore[union-attr]
        return [*changes, *(("ok", _claimed(claim)) for claim in answer.claims)]


def _changed(change: Change) -> Changed:
    return Changed(
        change.id,
        change.fence,
        change.cause,
        change.next,
        change.counters,
        text_of(change.result),
        "" if change.error is None else str(change.error),
    )


def _claimed(claim: Claim) -> Claimed:
    limits = (claim.terms.max_attempts, claim.terms.max_crashes, claim.stage, claim.cancel_requested)
    return Claimed(claim.id, claim.fence, claim.counters, *limits)


def _taken(one: TakenOver) -> Taken:
    claim = one.claim
    limits = (claim.terms.max_attempts, claim.terms.max_crashes, claim.stage, claim.cancel_requested)
    return Taken(claim.id, claim.fence, one.previous, one.fate, claim.counters, *limits)


class _Renew(Verb):
    def asked(
        self, tender: ProcessId, leases: Sequence[ProcessId], deaths: Sequence[Death] = ()
    ) -> tuple[str, list[Act]]:
        return tender, [*map(Leased, (tender, *leases)), *(Dead(death.process) for death in deaths)]

    def told(self, acts: list[Act], answer: Renewed, *_: Any) -> list[Told]:
        void = set(answer.void)
        told: list[Told] = [("fail" if isinstance(act, Leased) and act.process in void else "ok", act) for act in acts]
        return [*told, *(("ok", Voided(one)) for one in void), *(("ok", _taken(one)) for one in answer.taken)]


class _Tend(Verb):
    def asked(self, tender: ProcessId, *_: Any) -> tuple[str, list[Act]]:
        return tender, []

    def told(self, acts: list[Act], answer: Tended, *_: Any) -> list[Told]:  # noqa: ARG002
        return [("ok", _taken(one)) for one in answer.taken]


class _Alter(Verb):
    def asked(self, ids: Sequence[JobId], alteration: Any) -> tuple[str, list[Act]]:
        return "operator", [AlteredByHand(id, type(alteration).__name__.lower()) for id in ids]

    def told(self, acts: list[Act], answer: list[Altered], *_: Any) -> list[Told]:
        return [
            ("ok" if one.refused is None else "fail", replace(act, before=one.before, after=one.after))
            for act, one in zip(acts, answer, strict=True)
        ]


class _Evict(Verb):
    def asked(self, workers: Sequence[str]) -> tuple[str, list[Act]]:
        return "operator", [Evicted(worker) for worker in workers]

    def told(self, acts: list[Act], answer: list[str], *_: Any) -> list[Told]:
        return [("ok" if act.worker in answer else "fail", act) for act in acts]  # type: ignore[union-attr]


class _Begin(Verb):
    def asked(self, id: JobId, fence: Fence, scope: str, key: str, keep_ms: int | None) -> tuple[str, list[Act]]:  # noqa: ARG002
        return str(os.getpid()), [Began(id, fence, scope, key)]

    def told(self, acts: list[Act], answer: Begun, *_: Any) -> list[Told]:
        value = None if answer.value is None else text_of(answer.value)
        return [("ok", replace(act, first=answer.first, value=value)) for act in acts]


class _Record(Verb):
    def asked(self, id: JobId, fence: Fence, scope: str, key: str, value: bytes | None) -> tuple[str, list[Act]]:
        return str(os.getpid()), [Recorded(id, fence, scope, key, None if value is None else text_of(value))]

    def told(self, acts: list[Act], answer: bool, *_: Any) -> list[Told]:
        return [("ok" if answer else "fail", act) for act in acts]


class _Note(Verb):
    def asked(self, notes: Sequence[Note]) -> tuple[str, list[Act]]:
        return str(os.getpid()), [Noted(note.id, note.fence) for note in notes]

    def told(self, acts: list[Act], answer: tuple[JobId, ...], *_: Any) -> list[Told]:
        return [("fail" if act.job in answer else "ok", act) for act in acts]  # type: ignore[union-attr]


_VERBS: dict[str, type[Verb]] = {
    "enrol": _Enrol,
    "add": _Add,
    "exchange": _Exchange,
    "renew": _Renew,
    "tend": _Tend,
    "alter": _Alter,
    "evict": _Evict,
    "begin": _Begin,
    "record": _Record,
    "note": _Note,
}


def effect(log: Log, id: JobId, fence: Fence, scope: str, key: str, *, once: bool) -> None:
    """Write down that a job did something in the world."""
    log.tell(str(os.getpid()), Did(id, fence, scope, key, once))


def text_of(data: bytes | None) -> str:
    return "" if data is None else data.decode(errors="replace")
