"""The stored form of jobs, and the arguments by which scripts are told of them.

`lua/common.lua` lists what is stored where. What scripts never look at stays opaque to them.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from penstock.engines.forms import counters_in, counters_out, details_in, details_out, policy_in, progress_in
from penstock.model.job import (
    NO_COUNTERS,
    NO_DETAILS,
    Change,
    Claim,
    Counters,
    Details,
    ErrorInfo,
    Fence,
    Job,
    JobId,
    Move,
    NewJob,
    ProcessId,
    Unique,
    origin_of,
)
from penstock.model.retry import Policy
from penstock.model.states import State

Argument = str | bytes | int

#: States in the order of their numbers in the store.
NUMBERED = (
    State.BLOCKED,
    State.SCHEDULED,
    State.READY,
    State.RUNNING,
    State.SUCCEEDED,
    State.CANCELLED,
    State.EXPIRED,
    State.BURIED,
)
NUMBERS = {state: number for number, state in enumerate(NUMBERED)}

_EXPIRY, _UNIQUE, _KEY, _CRC, _DETAILS, _STAGE, _FRONT, _END = (1 << bit for bit in range(8))
_HEAD = struct.Struct(">qqIIBbI")
_OWN_HEAD, _OWN_HEAD_AND_CRC = struct.Struct(">BbI"), struct.Struct(">BbII")
# A body as most are: an envelope that this penstock wrote, and its CRC.
_USUAL, _USUAL_BODY = _FRONT | _END | _CRC, struct.Struct(">q17xbxxxxI")
_KIND, _KIND_OF_BODY, _FLAGS_AT = slice(16, 24), struct.Struct(">II"), 24
_LONG, _SIZE, _SHORT = struct.Struct(">q"), struct.Struct(">I"), struct.Struct(">H")
_FRONT_OF_ATTEMPT, _END_OF_ATTEMPT = struct.Struct(">qqH"), struct.Struct(">qH")
_FRONT_OF_END = struct.Struct(">Bq")
_CLAIM = struct.Struct(">IqIBB")
_CLAIMED_BODY_BYTES = 9
_NO_TIME = _LONG.pack(0)
_FRONT_BYTES = 24

# An envelope names its task, which the job's lane knows, or its details where a fallback has it; as it is written by
# this penstock it begins and ends so.
_END_OF_ENVELOPE = b',"kwargs":{}}'
_KEPT = 1024
_fronts: dict[str, bytes] = {}
_policies: dict[bytes, Policy] = {}
_policies_out: dict[int, tuple[Policy, bytes]] = {}

_pack = msgspec.msgpack.Encoder().encode
_unpack_history = msgspec.msgpack.Decoder(list[Any]).decode
_error_in = msgspec.json.Decoder(ErrorInfo).decode
_error_out = msgspec.json.Encoder().encode

_SUCCEEDED = str(NUMBERS[State.SUCCEEDED]).encode()
_NO_FALLBACK = _SHORT.pack(0) + b"\1"
_UNTIL = {"started": b"s", "ended": b"e", "window": b"w"}


def text(value: str) -> bytes:
    return value.encode()


# -- bodies -----------------------------------------------------------------------------------------------------------


def body(job: NewJob | Job, *, expires_ms: int | None, stage: int = 0) -> bytes:
    """Give the body of a job from its flags on."""
    envelope, flags, parts = job.envelope, 0, []
    front = _front(origin_of(job.details, job.task))
    if envelope.startswith(front):
        envelope, flags = envelope[len(front) :], _FRONT
    if envelope.endswith(_END_OF_ENVELOPE):
        envelope, flags = envelope[: -len(_END_OF_ENVELOPE)], flags | _END
    if expires_ms is not None:
        flags |= _EXPIRY
        parts.append(_LONG.pack(expires_ms))
    if job.details is not NO_DETAILS:
        flags |= _pack_keys(job.details, parts)
    if job.crc is not None:
        flags |= _CRC
        parts.append(_SIZE.pack(job.crc))
    details = details_out(job.details)
    if details is not None:
        flags |= _DETAILS
        parts.append(_sized(details))
    if stage:
        flags |= _STAGE
        parts.append(_SIZE.pack(stage))
    return b"".join((_OWN_HEAD.pack(flags, job.priority, len(envelope)), *parts, envelope))


def _usual_body(job: NewJob) -> bytes | None:
    """Give what `body` gives of a job without details whose envelope this penstock wrote, in half the time."""
    envelope, crc, front = job.envelope, job.crc, _fronts.get(job.task)
    if crc is None or job.details is not NO_DETAILS or front is None or not envelope.startswith(front):
        return None
    rest = envelope[len(front) :]
    if not rest.endswith(_END_OF_ENVELOPE):
        return None
    rest = rest[: -len(_END_OF_ENVELOPE)]
    return _OWN_HEAD_AND_CRC.pack(_FRONT | _END | _CRC, job.priority, len(rest), crc) + rest


def _front(task: str) -> bytes:
    front = _fronts.get(task)
    if front is None:
        front = b'{"v":1,"task":' + msgspec.json.encode(task) + b',"args":'
        if len(_fronts) >= _KEPT:
            _fronts.clear()
        _fronts[task] = front
    return front


def _pack_keys(details: Details, parts: list[bytes]) -> int:
    flags = 0
    if details.unique is not None:
        flags |= _UNIQUE
        parts.append(_UNTIL[details.unique.until] + _sized(text(details.unique.key)))
    if details.idempotency_key is not None:
        flags |= _KEY
        parts.append(_sized(text(details.idempotency_key)))
    return flags


def _sized(value: bytes) -> bytes:
    return _SIZE.pack(len(value)) + value


class Body:
    """A stored body, read as far as it is asked."""

    __slots__ = (
        *("_at", "_raw", "crc", "created_ms", "details", "expires_ms"),
        *("flags", "lane", "policy", "priority", "size", "stage"),
    )

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.created_ms, _, self.lane, self.policy, flags, self.priority, self.size = _HEAD.unpack_from(raw)
        self.flags, at = flags, _HEAD.size
        self.expires_ms: int | None = None
        self.crc: int | None = None
        self.details, self.stage = NO_DETAILS, 0
        if flags & _EXPIRY:
            (self.expires_ms,) = _LONG.unpack_from(raw, at)
            at += _LONG.size
        if flags & _UNIQUE:
            at += 1 + _SIZE.size + _SIZE.unpack_from(raw, at + 1)[0]
        if flags & _KEY:
            at += _SIZE.size + _SIZE.unpack_from(raw, at)[0]
        if flags & _CRC:
            (self.crc,) = _SIZE.unpack_from(raw, at)
            at += _SIZE.size
        if flags & _DETAILS:
            size = _SIZE.unpack_from(raw, at)[0]
            at += _SIZE.size
            self.details = details_in(raw[at : at + size])
            at += size
        if flags & _STAGE:
            (self.stage,) = _SIZE.unpack_from(raw, at)
            at += _SIZE.size
        self._at = at

    def envelope(self, task: str) -> bytes:
        envelope = self._raw[self._at :]
        if self.flags & _FRONT:
            envelope = _front(origin_of(self.details, task)) + envelope
        return envelope + _END_OF_ENVELOPE if self.flags & _END else envelope


def rewritten(raw: bytes, job: Job) -> bytes:
    """Give a stored body with what the job says now; its lane is for the script to set."""
    return raw[:_FRONT_BYTES] + body(job, expires_ms=job.expires_ms, stage=job.stage)


# -- new jobs ---------------------------------------------------------------------------------------------------------


def pack_jobs(jobs: Sequence[NewJob], arguments: list[Argument]) -> int:
    """Append jobs as runs of those that have queue, task and policy in common; gives how many runs."""
    runs, size_at = 0, 0
    last: tuple[str, str, Policy, bool] | None = None
    for job in jobs:
        plain = _is_plain(job)
        if last is None or last[0] != job.queue or last[1] != job.task or last[2] is not job.policy or last[3] != plain:
            last = (job.queue, job.task, job.policy, plain)
            arguments += (job.queue, job.task, policy_out(job.policy), job.policy.keep_ms, 0, int(plain))
            runs, size_at = runs + 1, len(arguments) - 2
        arguments[size_at] += 1  # type: ignore[operator]  # it holds how many jobs the run has
        arguments.append(job.id)
        if plain:
            arguments.append(body(job, expires_ms=None))
        else:
            _pack_special(job, arguments)
    return runs


def pack_plain(jobs: Iterable[NewJob], arguments: list[Argument]) -> bool:
    """Append jobs for the short way in; False if one of them needs the long one."""
    size_at = 0
    queue = task = ""
    policy: Policy | None = None
    for job in jobs:
        if not _is_plain(job):
            return False
        if job.policy is not policy or job.task != task or job.queue != queue:
            queue, task, policy = job.queue, job.task, job.policy
            arguments += (queue, task, policy_out(policy), 0)
            size_at = len(arguments) - 1
        arguments[size_at] += 1  # type: ignore[operator]  # it holds how many jobs the run has
        arguments += (job.id, _usual_body(job) or body(job, expires_ms=None))
    return True


def _is_plain(job: NewJob) -> bool:
    if job.delay_ms or job.run_at_ms is not None or job.expires_ms is not None or job.expires_in_ms is not None:
        return False
    details = job.details
    return details is NO_DETAILS or (details.unique is None and details.idempotency_key is None)


def _pack_special(job: NewJob, arguments: list[Argument]) -> None:
    expires = job.expires_ms is not None or job.expires_in_ms is not None
    unique = job.details.unique or Unique("")
    replaced = ErrorInfo(kind="cancelled", message=f"replaced by {job.id}")
    arguments += (
        body(job, expires_ms=0 if expires else None),  # the script sets it, by the clock of the store
        _time(job.run_at_ms, job.delay_ms or None),
        _time(job.expires_ms, job.expires_in_ms),
        unique.window_ms,
        unique.clash,
        _error_out(replaced),
    )


def _time(at_ms: int | None, after_ms: int | None) -> str:
    """Give a time, or a duration that begins with `+`; empty if there is neither."""
    if after_ms is not None:
        return f"+{after_ms}"
    return "" if at_ms is None else str(at_ms)


def policy_out(policy: Policy) -> bytes:
    known = _policies_out.get(id(policy))
    if known is not None and known[0] is policy:
        return known[1]
    encoded = msgspec.json.encode(policy)
    if len(_policies_out) >= _KEPT:
        _policies_out.clear()
    _policies_out[id(policy)] = policy, encoded
    return encoded


# -- changes ----------------------------------------------------------------------------------------------------------


def pack_changes(changes: Sequence[Change], arguments: list[Argument]) -> None:
    """Append how many changes there are, of how many jobs, and each change."""
    arguments += (len(changes), len({change.id for change in changes}))
    for change in changes:
        usual = change.result is not None and change.degraded is None and not change.ledger and not change.follow_ups
        if usual and change.next is State.SUCCEEDED and change.error is None:
            end = _end_of_attempt(change.ran_us, change.counters)
            arguments += (change.id, fence_text(change.fence), end + _NO_FALLBACK + change.result, _SUCCEEDED)  # type: ignore[operator]  # there is one
        else:
            _pack_change(change, arguments)


def _pack_change(change: Change, arguments: list[Argument]) -> None:
    arguments += (change.id, fence_text(change.fence))
    end = _end_of_attempt(change.ran_us, change.counters)
    if not change.next.is_final:
        arguments.append(end)
    else:
        arguments.append(end + _end_of_end(change.degraded, change.result))
        if change.error is None and not change.follow_ups and not change.ledger:
            arguments.append(NUMBERS[change.next])
            return
    arguments += ("x", NUMBERS[change.next], change.after_ms, int(change.counters.attempts > 0))
    arguments += (int(change.counters.runs_alone), b"" if change.error is None else _error_out(change.error))
    _pack_move(change.move, arguments)
    arguments.append(len(change.ledger))
    for entry in change.ledger:
        arguments += (ledger_field(entry.scope, entry.key), entry.value)
    runs_at = len(arguments)
    arguments.append(0)
    arguments[runs_at] = pack_jobs(change.follow_ups, arguments)


def _pack_move(move: Move | None, arguments: list[Argument]) -> None:
    if move is None:
        arguments.append(b"")
    else:
        arguments += (move.queue, move.task, move.stage, details_out(move.details) or b"")


def fence_text(fence: Fence) -> str:
    return f"{fence.number}.{fence.token & 0xFFFF_FFFF_FFFF_FFFF:016x}"


def token_text(token: int) -> str:
    return f"{token & 0xFFFF_FFFF_FFFF_FFFF:016x}"


def fence_in(stored: bytes) -> Fence:
    number, _, token = stored.partition(b".")
    unsigned = int(token, 16)
    return Fence(1 if number == b"1" else int(number), unsigned - (1 << 64) if unsigned >> 63 else unsigned)


def ledger_field(scope: str, key: str) -> bytes:
    """Give the name of an entry; the length keeps scope and key apart whatever they hold."""
    scoped = text(scope)
    return b"%d:%b%b" % (len(scoped), scoped, text(key))


def error_out(error: ErrorInfo) -> bytes:
    return _error_out(error)


def _end_of_attempt(ran_us: int, counters: Counters) -> bytes:
    stored = b"" if counters is NO_COUNTERS else counters_out(counters) or b""
    return _END_OF_ATTEMPT.pack(ran_us, len(stored)) + stored


def _end_of_end(degraded: str | None, result: bytes | None) -> bytes:
    fallback = b"" if degraded is None else text(degraded)
    return _SHORT.pack(len(fallback)) + fallback + (b"\0" if result is None else b"\1" + result)


def attempt(job: Job) -> bytes:
    """Give what is stored of the last attempt of a job."""
    process = b"" if job.process is None else text(job.process)
    front = _FRONT_OF_ATTEMPT.pack(job.claim_number, job.claimed_ms or 0, len(process)) + process
    return front + _end_of_attempt(job.ran_us, job.counters)


def has_attempt(job: Job) -> bool:
    tried = job.claim_number or job.ran_us or job.counters != NO_COUNTERS
    return bool(tried) or job.claimed_ms is not None or job.process is not None


def record_of_end(job: Job) -> bytes:
    return attempt(job) + _end_of_end(job.degraded, job.result)


def history_out(history: Iterable[ErrorInfo], *, forgiven: bool) -> bytes:
    entries = [(error.at_ms, _error_out(error).decode()) for error in history]
    return _pack((int(forgiven), *entries)) if entries else b""


# -- what scripts show ------------------------------------------------------------------------------------------------


class Catalog:
    """The lanes and policies that an answer names by number."""

    def __init__(self, lanes: Sequence[Any], policies: Sequence[Any]) -> None:
        self.lanes = {lanes[at]: (lanes[at + 1].decode(), lanes[at + 2].decode()) for at in range(0, len(lanes), 3)}
        self.policies = {policies[at]: _policy(policies[at + 1]) for at in range(0, len(policies), 2)}


def _policy(stored: bytes) -> Policy:
    policy = _policies.get(stored)
    if policy is None:
        policy = policy_in(stored.partition(b" ")[2])
        if len(_policies) >= _KEPT:
            _policies.clear()
        _policies[stored] = policy
    return policy


def read_claims(catalog: Catalog, told: Sequence[Any]) -> Iterator[Claim]:
    kinds: dict[bytes, tuple[str, str, Policy, bytes]] = {}
    for id, fence, raw, seldom in zip(told[::4], told[1::4], told[2::4], told[3::4], strict=True):
        kind = kinds.get(raw[_KIND])
        if kind is None:
            lane, policy = _KIND_OF_BODY.unpack(raw[_KIND])
            queue, task = catalog.lanes[lane]
            kind = kinds[raw[_KIND]] = queue, task, catalog.policies[policy], _front(task)
        queue, task, settings, front = kind
        flags = raw[_FLAGS_AT]
        if flags != _USUAL or seldom is not None:
            yield _unusual_claim(id, fence, raw, seldom, kind)
            continue
        created_ms, priority, crc = _USUAL_BODY.unpack_from(raw)
        yield Claim(
            id=id.decode(),
            fence=fence_in(fence),
            task=task,
            queue=queue,
            envelope=b"%b%b%b" % (front, raw[_USUAL_BODY.size :], _END_OF_ENVELOPE),
            crc=crc,
            policy=settings,
            priority=priority,
            enqueued_ms=created_ms,
        )


def _unusual_claim(
    id: bytes, fence: bytes, raw: bytes, seldom: Sequence[Any] | None, kind: tuple[str, str, Policy, bytes]
) -> Claim:
    stored = Body(raw)
    queue, task, policy, _ = kind
    more, stopped = seldom or (None, 0)
    return Claim(
        id=JobId(id.decode()),
        fence=fence_in(fence),
        task=task,
        queue=queue,
        envelope=stored.envelope(task),
        crc=stored.crc,
        policy=policy,
        counters=NO_COUNTERS if more is None else Attempt(more).counters,
        details=stored.details,
        priority=stored.priority,
        stage=stored.stage,
        enqueued_ms=stored.created_ms,
        cancel_requested=stopped == 1,
    )


class Attempt:
    """The last attempt of a job that came back or ended; `rest` is what stands behind it."""

    __slots__ = ("claimed_ms", "counters", "number", "process", "ran_us", "rest")

    def __init__(self, raw: bytes) -> None:
        self.number, claimed_ms, size = _FRONT_OF_ATTEMPT.unpack_from(raw)
        self.claimed_ms = claimed_ms or None
        at = _FRONT_OF_ATTEMPT.size
        self.process = ProcessId(raw[at : at + size].decode()) if size else None
        self.ran_us, counted = _END_OF_ATTEMPT.unpack_from(raw, at + size)
        at += size + _END_OF_ATTEMPT.size
        self.counters = counters_in(raw[at : at + counted] or None)
        self.rest = raw[at + counted :]


class Seen:
    """A job as `get` and `find` show it: stored pieces, and the same as a value."""

    WIDTH = 9

    def __init__(self, pieces: Sequence[Any], catalog: Catalog) -> None:
        self.pieces = pieces
        self.job = _job(pieces, catalog)

    @property
    def body(self) -> bytes:
        return bytes(self.pieces[1])


def read_jobs(answer: Sequence[Any]) -> list[Seen | None]:
    """Read `{now, lanes, policies, jobs}`."""
    catalog, shown = Catalog(answer[1], answer[2]), answer[3]
    rows = [shown[at : at + Seen.WIDTH] for at in range(0, len(shown), Seen.WIDTH)]
    return [None if row[1] is None else Seen(row, catalog) for row in rows]


def _job(pieces: Sequence[Any], catalog: Catalog) -> Job:
    id, raw, claim, due, ended, more, history, progress, stopped = pieces
    stored = Body(raw)
    queue, task = catalog.lanes[stored.lane]
    state = State.READY if due is None else State.SCHEDULED
    tried, ended_ms, result, degraded = more, None, None, None
    if ended is not None:
        number, ended_ms = _FRONT_OF_END.unpack_from(ended)
        state, tried = NUMBERED[number], ended[_FRONT_OF_END.size :]
    last = None if tried is None else Attempt(tried)
    if ended is not None and last is not None:
        degraded, result = _end_in(last.rest)
    claimed = (0, None, None) if last is None else (last.number, last.claimed_ms, last.process)
    if claim is not None:
        state, claimed = State.RUNNING, _claimed(claim)
    errors, forgiven = history_in(history)
    return Job(
        id=JobId(id.decode()),
        state=state,
        task=task,
        queue=queue,
        envelope=stored.envelope(task),
        crc=stored.crc,
        priority=stored.priority,
        policy=catalog.policies[stored.policy],
        details=stored.details,
        counters=NO_COUNTERS if last is None else last.counters,
        claim_number=claimed[0],
        stage=stored.stage,
        cancel_requested=stopped == 1,
        created_ms=stored.created_ms,
        due_ms=None if due is None else int(float(due)),
        expires_ms=stored.expires_ms,
        claimed_ms=claimed[1],
        ended_ms=ended_ms,
        ran_us=0 if last is None else last.ran_us,
        error=errors[-1] if errors and not forgiven else None,
        history=errors,
        progress=progress_in(progress),
        result=result,
        degraded=degraded,
        process=claimed[2],
    )


def _end_in(raw: bytes) -> tuple[str | None, bytes | None]:
    (size,) = _SHORT.unpack_from(raw)
    at = _SHORT.size + size
    return raw[_SHORT.size : at].decode() or None, raw[at + 1 :] if raw[at] else None


def _claimed(claim: bytes) -> tuple[int, int | None, ProcessId]:
    at = _CLAIM.size + claim[_CLAIM.size - 1] + _CLAIMED_BODY_BYTES
    number, claimed_ms, size = _FRONT_OF_ATTEMPT.unpack_from(claim, at)
    at += _FRONT_OF_ATTEMPT.size
    return number, claimed_ms or None, ProcessId(claim[at : at + size].decode())


def history_in(stored: bytes | None) -> tuple[tuple[ErrorInfo, ...], bool]:
    """Give the errors of a job, oldest first, and whether the last one was forgiven."""
    if stored is None:
        return (), False
    forgiven, *entries = _unpack_history(stored)
    errors = (msgspec.structs.replace(_error_in(error), at_ms=at_ms) for at_ms, error in entries)
    return tuple(errors), bool(forgiven)
