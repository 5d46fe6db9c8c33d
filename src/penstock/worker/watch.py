"""What a supervisor sees to while nothing happens: time limits, memory, processes that stand still, a silent store."""

import logging
from collections.abc import Mapping
from pathlib import Path

from penstock.model.durations import spell
from penstock.model.outcome import Ending
from penstock.worker.channel import Plan
from penstock.worker.forensics import collect_strays
from penstock.worker.member import Member
from penstock.worker.offspring import Strays
from penstock.worker.upkeep import Upkeep
from penstock.worker.verdict import Verdict

__all__ = ["Sources", "Watch"]

log = logging.getLogger("penstock.worker")

MEASURE_EVERY_S = 1.0


class Watch:
    """Looks at processes in turn and ends those that break a rule.

    Args:
        members: those that live, by their numbers; its owner changes it.
    """

    def __init__(self, plan: Plan, members: Mapping[int, Member]) -> None:
        self._plan, self._members = plan, members
        self._measured_at = 0.0
        self._strays = Strays()

    def look(self, now: float, upkeep: Upkeep) -> bool:
        """Look at every process; say whether it was time to measure, once a second."""
        measure = now - self._measured_at >= MEASURE_EVERY_S
        for member in list(self._members.values()):
            member.keep_time(now)
            if member.began_at is not None:
                member.check_jobs()
            if measure and member.greeted:
                _measure(member, now, upkeep)
        self._watch_starts(now)
        if measure:
            self._measured_at = now
            collect_strays(self._members.keys())
            self._tell_strays()
            self._fence(now, upkeep)
        return measure

    def _tell_strays(self) -> None:
        for pid, command in self._strays.look(self._members.keys()):
            log.warning(
                "process %d was left behind by a job, in a session of its own, and is not ended: %s", pid, command
            )

    def _watch_starts(self, now: float) -> None:
        """Mind the oldest of the processes that start: what one cannot import, the others cannot either."""
        starting = next((member for member in self._members.values() if not member.greeted), None)
        if starting is not None and not starting.stopping:
            starting.keep_starting(now, self._plan.start_ms / 1000)

    def _fence(self, now: float, upkeep: Upkeep) -> None:
        """End running jobs while the leases still hold, when they were not renewed for two thirds of one.

        A process that holds nothing but undelivered outcomes keeps trying, because the fence decides.
        """
        lease_s, renewed_at = self._plan.lease_ms / 1000, upkeep.renewed_at
        if renewed_at is None or now - renewed_at < lease_s * 2 / 3:
            return
        why, verdict = "the store has not answered for two thirds of a lease", "its worker lost the store"
        overdue_s = now - renewed_at - lease_s / 3
        if now - (upkeep.trying_since or now) < overdue_s / 2:  # it hardly asked, which is no fault of the store
            why = f"this worker stood still for {spell(round(overdue_s, 1))} (SIGSTOP, a debugger or a paused machine)"
            verdict = "its worker stood still and could not renew its lease"
        for member in self._members.values():
            if member.began_at is not None and member.verdict is None and member.board.running():
                log.error(
                    "%s; process %d is killed before others take its jobs over: %s; they go back free of charge",
                    why,
                    member.pid,
                    member.jobs(),
                )
                member.kill(Verdict(Ending.RELEASED, verdict))


def _measure(member: Member, now: float, upkeep: Upkeep) -> None:
    if member.began_at is not None:
        member.check_memory()
    if member.is_frozen(now):
        jobs = member.jobs() or "none"
        upkeep.forsake(member.id)
        member.kill_hung(Verdict(Ending.LOST, "its process was stopped from outside"))
        log.error(
            "process %d has been stopped for too long (SIGSTOP or a debugger) and is killed and replaced; its jobs "
            "run again as soon as the store has heard of it: %s",
            member.pid,
            jobs,
        )


class Sources:
    """The files of an application, and whether they have changed since somebody last asked."""

    def __init__(self) -> None:
        self._changed_ns: dict[str, int] = {}

    def add(self, sources: tuple[str, ...]) -> None:
        for source in sources:
            self._changed_ns.setdefault(source, _changed_ns(source))

    def take_changed(self) -> list[str]:
        """Give those that have changed, once."""
        changed = [source for source, then in self._changed_ns.items() if _changed_ns(source) != then]
        if changed:
            self._changed_ns = {source: _changed_ns(source) for source in self._changed_ns}
        return changed


def _changed_ns(source: str) -> int:
    try:
        return Path(source).stat().st_mtime_ns
    except OSError:
        return 0
