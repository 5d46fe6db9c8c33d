"""What is left when all is over, beside what everybody wrote down: each method gives what should not be."""

from collections import Counter, defaultdict
from pathlib import Path

import msgspec

from penstock.engine import Engine, Filter
from penstock.model.codec import decode_envelope
from penstock.model.job import Job
from penstock.model.states import State
from tests.crashpoints.told import ASKED, DONE, ERRAND, FRAIL, SAID
from tests.torture.records import ACCEPTED, ATTEMPTED, EFFECTS, Trail

_PAGE = 1000


class Remains:
    def __init__(self, folder: Path, engine: Engine, orders: set[str]) -> None:
        self._jobs: dict[str, Job] = {}
        self._names: Counter[str] = Counter()
        for job in _all_jobs(engine):
            name = msgspec.json.decode(decode_envelope(job.envelope, job.crc).args)[0]
            self._names[name] += 1
            self._jobs[name.removesuffix(".edited")] = job
        self._counted = {
            (row.queue, row.task, state): count for row in engine.counts() for state, count in row.states.items()
        }
        self._held = sum(view.running for view in engine.workers())
        self._orders = orders
        self._attempted = [tuple(names) for names in Trail(folder / ATTEMPTED).news()]
        self._accepted = {name for names in Trail(folder / ACCEPTED).news() for name in names}
        self._asked = {name: act for act, name in Trail(folder / ASKED).news()}
        self._said = {name: act for act, name in Trail(folder / SAID).news()}
        self._done = [(what, name) for what, name in Trail(folder / DONE).news()]
        self._ran: defaultdict[str, set[str]] = defaultdict(set)
        for stage, id, number, token, _ in Trail(folder / EFFECTS).news():
            if stage == "ended":
                self._ran[id].add(f"{number}:{token}")

    def __str__(self) -> str:
        states = Counter(job.state.value for job in self._jobs.values())
        told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        return f"{len(self._accepted)} jobs accepted, {len(self._jobs)} there: {told}"

    def wrongs(self) -> dict[str, list[str]]:
        """Give each rule that is broken, with the names of the jobs."""
        rules = {
            "lost": self._lost(),
            "stuck": [name for name, job in self._jobs.items() if not job.state.is_final],
            "stored twice": [name for name, count in self._names.items() if count > 1],
            "torn batch": [" ".join(names) for names in self._attempted if len({n in self._jobs for n in names}) > 1],
            "not as their transaction": self._apart_from_their_order(),
            "stale result": [name for name, job in self._jobs.items() if self._is_stale(job)],
            "side effect not exactly once": self._not_once(),
            "step done again although it was recorded": self._repeated_steps(),
            "not one job of its own": self._without_follower(),
            "not as an operator was told": self._not_as_said(),
            "miscounted": self._miscounted(),
            "held by nobody who lives": [str(self._held)] if self._held else [],
        }
        return {rule: names for rule, names in rules.items() if names}

    def _lost(self) -> list[str]:
        gone = self._accepted - self._jobs.keys()
        return sorted(name for name in gone if self._asked.get(name) != "delete")

    def _apart_from_their_order(self) -> list[str]:
        within = {name for names in self._attempted for name in names if name.endswith(".within")}
        return sorted((within & self._jobs.keys()) ^ self._orders)

    def _is_stale(self, job: Job) -> bool:
        """Whether the result comes from another claim than the last, or from one whose code never ended."""
        if job.state is not State.SUCCEEDED:
            return False
        result = msgspec.json.decode(job.result or b'""')
        return result.partition(":")[0] != str(job.claim_number) or result not in self._ran[job.id]

    def _succeeded_errands(self) -> list[str]:
        return [name for name, job in self._jobs.items() if job.task == ERRAND and job.state is State.SUCCEEDED]

    def _not_once(self) -> list[str]:
        paid = Counter(name for what, name in self._done if what == "paid")
        return [name for name in {*self._succeeded_errands(), *paid} if paid[name] != 1]

    def _repeated_steps(self) -> list[str]:
        recorded: set[str] = set()
        repeated = []
        for what, name in self._done:
            if what == "recorded":
                recorded.add(name)
            elif what == "step" and name in recorded:
                repeated.append(name)
        return repeated

    def _without_follower(self) -> list[str]:
        return [name for name in self._succeeded_errands() if self._names[f"{name}.follow"] != 1]

    def _not_as_said(self) -> list[str]:
        return [f"{act} of {name}" for name, act in self._said.items() if not self._is_as_said(act, name)]

    def _is_as_said(self, act: str, name: str) -> bool:
        job = self._jobs.get(name)
        if job is None:
            return act == "delete"
        if act == "edit":
            return self._names[f"{name}.edited"] == 1
        if act == "upgrade":
            return (job.task, job.degraded, job.state) == (FRAIL, None, State.SUCCEEDED)
        return job.state.value == {"cancel": "cancelled", "bury": "buried"}.get(act, "succeeded")

    def _miscounted(self) -> list[str]:
        recounted = Counter((job.queue, job.task, job.state) for job in self._jobs.values())
        return [str(key) for key in {*recounted, *self._counted} if recounted[key] != self._counted.get(key, 0)]


def _all_jobs(engine: Engine) -> list[Job]:
    page = engine.find(Filter(limit=_PAGE))
    jobs = list(page.jobs)
    while page.next is not None:
        page = engine.find(Filter(limit=_PAGE, before=page.next))
        jobs += page.jobs
    return jobs
