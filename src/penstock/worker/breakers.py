"""The circuit breakers of a process: which tasks wait for a dependency, and which job tries it again."""

import logging
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from penstock.dependencies import BREAKERS, read_breaker
from penstock.engine import Engine
from penstock.model.breaker import Breaker, Terms, failed_again, joined, let_through, opened
from penstock.model.durations import spell
from penstock.model.errors import EngineUnavailable
from penstock.model.failures import dependency_of
from penstock.model.job import Claim, JobId
from penstock.model.outcome import Ending, Outcome

__all__ = ["Breakers"]

log = logging.getLogger("penstock.worker")

#: How old what is known of the breakers may be.
LOOK_EVERY_S = 1.0
#: How long the store is not asked again after it could not be reached.
UNREACHABLE_S = 10.0
_DEFAULT = Terms()


class Breakers:
    """What one process knows of dependencies; used by its pump alone.

    The state is shared by all workers and changes by compare-and-set, so that one of them opens a breaker, one lets a
    job through, and one closes it. While the store cannot be reached, what was known last holds.

    Args:
        needs: which dependencies each task is known to need; more is learned from how they fail.
        terms: by dependency; the others have the default ones.
    """

    def __init__(self, engine: Engine, needs: Mapping[str, Sequence[str]], terms: Mapping[str, Terms]) -> None:
        self._engine, self._terms = engine, terms
        self._needs = {task: set(names) for task, names in needs.items()}
        self._stored: dict[str, bytes] = {}
        self._open: dict[str, Breaker] = {}
        self._failures: Counter[str] = Counter()
        self._probes: dict[JobId, list[str]] = {}
        self._looked = self._tried = self._unreachable_until = float("-inf")

    # -- before a claim -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """See what other workers have found, unless that was done a moment ago."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S or now < self._unreachable_until:
            return
        try:
            self._take_in(self._engine.shared(BREAKERS))
        except EngineUnavailable as error:
            self._give_up(error)
        for name in tuple(self._open):
            self._join(name)

    @property
    def is_any_open(self) -> bool:
        return bool(self._open)

    def passable(self, tasks: Mapping[str, str]) -> Mapping[str, str]:
        """Give the tasks that no open breaker holds up."""
        if not self._open:
            return tasks
        waiting = {task for breaker in self._open.values() for task in breaker.tasks}
        return {task: runner for task, runner in tasks.items() if task not in waiting}

    def on_trial(self, tasks: Mapping[str, str], now_ms: int) -> Mapping[str, str]:
        """Give the tasks of which one job may try whether a dependency works again; none while it is too early.

        They are asked for once a second, because there may be no such job.
        """
        if not self._open or time.monotonic() - self._tried < LOOK_EVERY_S:
            return {}
        tried = {name for name, breaker in self._open.items() if breaker.may_be_tried(now_ms)}
        others = {task for name, breaker in self._open.items() if name not in tried for task in breaker.tasks}
        wanted = {task for name in tried for task in self._open[name].tasks} - others
        found = {task: runner for task, runner in tasks.items() if task in wanted}
        if found:
            self._tried = time.monotonic()
        return found

    def lets_through(self, claim: Claim, now_ms: int) -> bool:
        """Say whether this job tries its dependencies, or another worker was faster."""
        needed = [(name, breaker) for name, breaker in self._open.items() if claim.task in breaker.tasks]
        if not all(breaker.may_be_tried(now_ms) for _, breaker in needed):
            return False
        for name, breaker in needed:
            if not self._change(name, let_through(breaker, claim.id, now_ms)):
                self.gave_back(claim, now_ms)
                return False
            log.info("job %s of %s tries whether %s works again", claim.id, claim.task, name)
            self._probes[claim.id] = [*self._probes.get(claim.id, ()), name]
        return True

    def gave_back(self, claim: Claim, now_ms: int) -> None:
        """Let another job try what this one was to try, as it has not started."""
        for name in self._probes.pop(claim.id, ()):
            breaker = self._open.get(name)
            if breaker is not None and breaker.probe == claim.id:
                self._change(name, replace(breaker, probe="", probe_ms=now_ms))

    # -- after a job --------------------------------------------------------------------------------------------------

    def judge(self, claim: Claim, outcome: Outcome, now_ms: int) -> Outcome:
        """Learn from how a job ended; what it suffers from an open breaker costs it nothing."""
        failed = _failed_for_want_of(outcome)
        tried = self._probes.pop(claim.id, [])
        for name in tried:
            self._judge_probe(name, claim, failed, outcome, now_ms)
        if failed is None:
            if outcome.ending is Ending.SUCCEEDED:
                for name in self._needs.get(claim.task, ()):
                    self._failures.pop(name, None)
            return outcome
        self._needs.setdefault(claim.task, set()).add(failed)
        if failed in self._open or failed in tried:
            self._join(failed)
            return outcome if claim.terms.at_most_once else _free_of_charge(outcome)
        self._failures[failed] += 1
        if self._failures[failed] >= self._terms_of(failed).after:
            self._trip(failed, outcome, now_ms)
        return outcome

    def _judge_probe(self, name: str, claim: Claim, failed: str | None, outcome: Outcome, now_ms: int) -> None:
        """Close the breaker, unless the job failed of it again, or did not get so far.

        A person may have opened it anew meanwhile, or another job tries by now: then this one has no say.
        """
        breaker = self._open.get(name)
        if breaker is None or breaker.probe != claim.id:
            return
        if failed == name or outcome.ending is Ending.TIMED_OUT:
            again = failed_again(breaker, self._terms_of(name), _reason(outcome), now_ms, random.random())
            if self._change(name, again):
                wait_s = (again.pause_ms or 0) / 1000
                log.warning("%s is still out of order, tried again in %s: %s", name, spell(wait_s), again.reason)
        elif outcome.ending in (Ending.SUCCEEDED, Ending.FAILED):
            if self._change(name, None):
                log.warning("%s works again; its tasks go on: %s", name, ", ".join(breaker.tasks))
        else:
            self._change(name, replace(breaker, probe="", probe_ms=now_ms))

    def _trip(self, name: str, outcome: Outcome, now_ms: int) -> None:
        terms, tasks = self._terms_of(name), self._who_needs(name)
        breaker = opened(terms, tasks, _reason(outcome), now_ms, random.random())
        if self._change(name, breaker):
            log.error(
                "%s is out of order after %d failures in a row; these tasks wait, free of charge, and one job tries "
                "again in %s: %s; the last failure: %s",
                name,
                terms.after,
                spell(terms.pause_ms / 1000),
                ", ".join(tasks),
                breaker.reason,
            )

    # -- the shared state ---------------------------------------------------------------------------------------------

    def _take_in(self, found: Mapping[str, bytes]) -> None:
        self._looked = time.monotonic()
        closed = self._open.keys() - found.keys()
        for name in closed:
            self._failures.pop(name, None)
        self._stored = dict(found)
        self._open = {name: breaker for name, data in found.items() if (breaker := read_breaker(data)) is not None}

    def _join(self, name: str) -> None:
        """Let the tasks that are known here to need it wait everywhere."""
        breaker = self._open.get(name)
        if breaker is not None and (tasks := self._who_needs(name)) and not set(tasks) <= set(breaker.tasks):
            self._change(name, joined(breaker, tasks))

    def _who_needs(self, name: str) -> tuple[str, ...]:
        return tuple(sorted(task for task, names in self._needs.items() if name in names))

    def _change(self, name: str, breaker: Breaker | None) -> bool:
        """Change a breaker from what is known of it; where another worker was faster, see what it did."""
        if time.monotonic() < self._unreachable_until:
            return False
        data = None if breaker is None else msgspec.json.encode(breaker)
        try:
            if self._engine.share(BREAKERS, name, data, self._stored.get(name)):
                self._keep(name, breaker, data)
                return True
            self._take_in(self._engine.shared(BREAKERS))
        except EngineUnavailable as error:
            self._give_up(error)
        except ValueError as error:
            log.error("the circuit breaker of %s cannot be kept: %s", name, error)
        return False

    def _give_up(self, error: EngineUnavailable) -> None:
        """Let a store that does not answer alone for a while: each call may take seconds, and the pump waits for it."""
        self._unreachable_until = time.monotonic() + UNREACHABLE_S
        log.warning("the circuit breakers are taken as they were last seen: %s", error)

    def _keep(self, name: str, breaker: Breaker | None, data: bytes | None) -> None:
        self._failures.pop(name, None)
        if breaker is None or data is None:
            self._open.pop(name, None)
            self._stored.pop(name, None)
        else:
            self._open[name], self._stored[name] = breaker, data

    def _terms_of(self, name: str) -> Terms:
        return self._terms.get(name, _DEFAULT)


def _failed_for_want_of(outcome: Outcome) -> str | None:
    """Give the dependency that a failure is put down to; a job that is to be buried has done all that it will do."""
    return None if outcome.error is None or outcome.verdict == "bury" else dependency_of(outcome.error.failure)


def _reason(outcome: Outcome) -> str:
    error = outcome.error
    return "" if error is None else f"{error.type}: {error.message}"[:_LONGEST_REASON]


def _free_of_charge(outcome: Outcome) -> Outcome:
    error = None if outcome.error is None else replace(outcome.error, kind="released")
    return replace(outcome, ending=Ending.RELEASED, error=error, verdict=None, after_ms=None)


_LONGEST_REASON = 300
