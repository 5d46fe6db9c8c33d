"""The life of a job as one table: every state, every cause of a change, every transition."""

from enum import StrEnum


class State(StrEnum):
    """Where a job stands. The last four are final: only a person moves a job out of them."""

    BLOCKED = "blocked"
    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    BURIED = "buried"

    @property
    def is_final(self) -> bool:
        return self in FINAL


WAITING = frozenset({State.BLOCKED, State.SCHEDULED, State.READY})
FINAL = frozenset({State.SUCCEEDED, State.CANCELLED, State.EXPIRED, State.BURIED})


class Cause(StrEnum):
    """What moves a job from one state to the next."""

    ADD = "add"
    DUE = "due"
    NEEDS_MET = "needs met"
    CLAIM = "claim"
    SUCCEED = "succeed"
    RETRY = "retry"
    SNOOZE = "snooze"
    RELEASE = "release"
    FALL_BACK = "fall back"
    LOSE = "lose"
    CRASH = "crash"
    BURY = "bury"
    CANCEL = "cancel"
    EXPIRE = "expire"
    KICK = "kick"
    UPGRADE = "upgrade"
    EDIT = "edit"
    RESCHEDULE = "reschedule"
    DELETE = "delete"


_S = State

#: (state before, cause) -> states it may lead to. None before: not stored yet; None after: gone.
TRANSITIONS: dict[tuple[State | None, Cause], frozenset[State | None]] = {
    (None, Cause.ADD): frozenset({_S.READY, _S.SCHEDULED, _S.BLOCKED}),
    (_S.SCHEDULED, Cause.DUE): frozenset({_S.READY}),
    (_S.BLOCKED, Cause.NEEDS_MET): frozenset({_S.READY, _S.SCHEDULED}),
    (_S.READY, Cause.CLAIM): frozenset({_S.RUNNING}),
    (_S.RUNNING, Cause.SUCCEED): frozenset({_S.SUCCEEDED}),
    (_S.RUNNING, Cause.RETRY): frozenset({_S.SCHEDULED, _S.READY}),
    (_S.RUNNING, Cause.SNOOZE): frozenset({_S.SCHEDULED, _S.READY}),
    (_S.RUNNING, Cause.RELEASE): frozenset({_S.READY, _S.SCHEDULED}),
    (_S.RUNNING, Cause.FALL_BACK): frozenset({_S.READY}),
    (_S.RUNNING, Cause.LOSE): frozenset({_S.READY}),
    (_S.RUNNING, Cause.CRASH): frozenset({_S.READY}),
    (_S.RUNNING, Cause.BURY): frozenset({_S.BURIED}),
    (_S.RUNNING, Cause.CANCEL): frozenset({_S.CANCELLED}),
    (_S.READY, Cause.CANCEL): frozenset({_S.CANCELLED}),
    (_S.SCHEDULED, Cause.CANCEL): frozenset({_S.CANCELLED}),
    (_S.BLOCKED, Cause.CANCEL): frozenset({_S.CANCELLED}),
    (_S.READY, Cause.EXPIRE): frozenset({_S.EXPIRED}),
    (_S.SCHEDULED, Cause.EXPIRE): frozenset({_S.EXPIRED}),
    (_S.BLOCKED, Cause.EXPIRE): frozenset({_S.EXPIRED}),
    (_S.READY, Cause.BURY): frozenset({_S.BURIED}),
    (_S.SCHEDULED, Cause.BURY): frozenset({_S.BURIED}),
    (_S.BLOCKED, Cause.BURY): frozenset({_S.BURIED}),
    (_S.BURIED, Cause.KICK): frozenset({_S.READY, _S.SCHEDULED}),
    (_S.CANCELLED, Cause.KICK): frozenset({_S.READY, _S.SCHEDULED}),
    (_S.EXPIRED, Cause.KICK): frozenset({_S.READY, _S.SCHEDULED}),
    (_S.SCHEDULED, Cause.KICK): frozenset({_S.READY, _S.SCHEDULED}),
    (_S.SUCCEEDED, Cause.UPGRADE): frozenset({_S.READY}),
    (_S.BURIED, Cause.UPGRADE): frozenset({_S.READY}),
    (_S.READY, Cause.EDIT): frozenset({_S.READY}),
    (_S.SCHEDULED, Cause.EDIT): frozenset({_S.SCHEDULED}),
    (_S.BLOCKED, Cause.EDIT): frozenset({_S.BLOCKED}),
    (_S.BURIED, Cause.EDIT): frozenset({_S.READY}),
    (_S.READY, Cause.RESCHEDULE): frozenset({_S.SCHEDULED}),
    (_S.SCHEDULED, Cause.RESCHEDULE): frozenset({_S.SCHEDULED}),
    (_S.BLOCKED, Cause.DELETE): frozenset({None}),
    (_S.SCHEDULED, Cause.DELETE): frozenset({None}),
    (_S.READY, Cause.DELETE): frozenset({None}),
    (_S.SUCCEEDED, Cause.DELETE): frozenset({None}),
    (_S.CANCELLED, Cause.DELETE): frozenset({None}),
    (_S.EXPIRED, Cause.DELETE): frozenset({None}),
    (_S.BURIED, Cause.DELETE): frozenset({None}),
}


def allows(before: State | None, cause: Cause, after: State | None) -> bool:
    """Say whether the table holds this transition."""
    return after in TRANSITIONS.get((before, cause), frozenset())


def sources(cause: Cause) -> frozenset[State]:
    """Give the states from which `cause` may move a job."""
    return frozenset(before for before, why in TRANSITIONS if why is cause and before is not None)


def picture() -> str:
    """Draw the table as a Mermaid state diagram, the same text every time."""
    arrows: dict[tuple[State | None, State | None], list[str]] = {}
    for (before, cause), nexts in TRANSITIONS.items():
        for after in nexts:
            arrows.setdefault((before, after), []).append(cause)
    order = [None, *State]
    drawn = sorted(arrows, key=lambda arrow: (order.index(arrow[0]), arrow[1] is None, order.index(arrow[1])))
    lines = [
        f"    {_drawn(before)} --> {_drawn(after)} : {', '.join(arrows[before, after])}" for before, after in drawn
    ]
    return "\n".join(["stateDiagram-v2", *lines, ""])


def _drawn(state: State | None) -> str:
    return state or "[*]"
