"""Moving jobs from one store to another, each exactly once, whatever is killed when.

Two stores share no transaction, so a waiting job goes in steps, of which each can be told from the next:

1. a copy is loaded into the target, in a paused queue where nobody can claim it: the source's job counts;
2. the source's job is buried as moved: from now on the copy counts;
3. the copy is brought to its queue in the target, where it can run;
4. the buried job is deleted in the source.

What a killed move left is told by where a job stands: a copy in the paused queue whose job is not buried as moved was
never given away and is dropped; one whose job is, goes on with step 3. Jobs that have ended cannot run, so they are
loaded where they belong and deleted in the source. See docs/decisions/0012-moving.md.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from msgspec.structs import replace

from penstock.engine import Alteration, Altered, Bury, Delete, Edit, Engine, Filter, Kick, Subject
from penstock.model.errors import PenstockError
from penstock.model.job import Job, JobId
from penstock.model.states import WAITING, State
from penstock.moving.pages import load_each, oldest_first
from penstock.moving.switches import INBOUND, hold, is_own, let_go, staging_name
from penstock.moving.tally import Tally

__all__ = ["MoveRefused", "Mover", "survey"]

_MARK = "moved by penstock to "
_WAITING = frozenset({State.SCHEDULED, State.READY})
_BURIED = frozenset({State.BURIED})
_HISTORY = frozenset({State.SUCCEEDED, State.CANCELLED, State.EXPIRED})
_POLL_S = 1.0


class MoveRefused(PenstockError):
    """A move would do harm, or cannot be made; nothing was changed. The message says what to do."""


def survey(source: Engine, *, history: bool = False) -> Tally:
    """Count what a move would find, without changing anything."""
    tally = Tally()
    for row in source.counts():
        if is_own(row.queue):
            continue
        wanted = _states(history)
        tally.queues[row.queue].found += sum(count for state, count in row.states.items() if state in wanted)
        tally.running[row.queue] += row.states.get(State.RUNNING, 0)
    return tally


class Mover:
    """Carries the jobs and switches of `source` to `target`. Run one at a time.

    Args:
        history: also carry jobs that have ended, with their results.
        advance: is told how many jobs were dealt with, after each page.

    Raises:
        MoveRefused: both are one store, or jobs are on another way that was not finished.
    """

    def __init__(
        self,
        source: Engine,
        target: Engine,
        *,
        history: bool = False,
        advance: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._source, self._target, self._history, self._advance = source, target, history, advance
        here, there = source.describe(), target.describe()
        if here.epoch == there.epoch:
            raise MoveRefused(f"{here.url} and {there.url} are one store; name another one to move to.")
        self._staging = staging_name(here.epoch)
        self._ours = f"(store {there.epoch})"
        self._seal = Bury(f"{_MARK}{there.url} {self._ours}")
        self._tally = Tally()
        self._refuse_other_ways()

    def run(self, *, wait: Callable[[int], object] | None = None) -> Tally:
        """Move until nothing is left that can be moved; a move that was killed is finished.

        The queues of the source stay paused, so that nothing starts there.

        Args:
            wait: also wait for jobs that run in the source, and move those that are to run again; it is told how many
                run, about once a second.
        """
        self._target.alter_queue(self._staging, paused=True)
        earlier, total = self._finish_earlier(), Tally()
        while True:
            total.held = hold(self._source, self._target)
            lap = self._carry_all()
            total.go_on(lap)
            total.running = self._running()
            if lap.total().moved + lap.total().there:
                continue
            if wait is None or not total.running.total():
                break
            wait(total.running.total())
            self._await_running()
        self._close()
        total.add(earlier)
        return total

    def give_up(self) -> tuple[Tally, tuple[str, ...]]:
        """Bring what is on its way to its end, and set the source's queues as they were before the move."""
        self._target.alter_queue(self._staging, paused=True)
        total = self._finish_earlier()
        resumed = let_go(self._source)
        self._close()
        total.running = self._running()
        return total, resumed

    def _refuse_other_ways(self) -> None:
        """Refuse to begin while jobs stand between two stores, of which only one is part of this move."""
        inbound = {queue.name for queue in self._source.queues() if queue.name.startswith(INBOUND) and queue.unfinished}
        if inbound:
            raise MoveRefused(
                f"A move into {self._source.describe().url} was not finished: jobs stand in "
                f"{', '.join(sorted(inbound))}. Run that `penstock move` again, then this one."
            )
        for page in oldest_first(self._source, Filter(states=_BURIED, text=_MARK)):
            other = next((job for job in page if _is_sealed(job) and not self._is_ours(job)), None)
            if other is not None and other.error is not None:
                raise MoveRefused(
                    f"Job {other.id} was {other.error.message}, and that move was not finished. Run it again, then "
                    f"this one; if that store is no more, `penstock jobs kick {other.id}` lets the job run here."
                )

    # -- rounds -------------------------------------------------------------------------------------------------------

    def _carry_all(self) -> Tally:
        """Go once through everything that is to be moved."""
        self._tally = tally = Tally()
        for page in oldest_first(self._source, Filter(states=_WAITING)):
            self._carry(page, self._carry_waiting)
        for page in oldest_first(self._source, Filter(states=_states(self._history) - _WAITING)):
            self._carry([job for job in page if not _is_sealed(job)], self._carry_ended)
        return tally

    def _carry(self, page: Sequence[Job], carry: Callable[[list[Job]], None]) -> None:
        jobs = [job for job in page if not is_own(job.queue)]
        self._tally.find(jobs)
        if jobs:
            carry(jobs)
        self._advance(len(jobs))

    def _running(self) -> Counter[str]:
        return +survey(self._source).running

    def _await_running(self) -> None:
        """Wait until a running job has ended, or for a second: one that is to run again does not end."""
        running = self._source.find(Filter(states=frozenset({State.RUNNING}))).jobs
        if running:
            self._source.wait(Subject(jobs=tuple(job.id for job in running)), 0, _POLL_S)

    def _close(self) -> None:
        """Take the switch off the staging queue, unless jobs still stand there."""
        waiting = self._target.find(Filter(queue=self._staging, states=_WAITING, limit=1)).jobs
        if not waiting:
            self._target.alter_queue(self._staging, paused=False)

    # -- what an earlier move left ------------------------------------------------------------------------------------

    def _finish_earlier(self) -> Tally:
        """Bring jobs that were given away to their queues, then drop copies of those that were not."""
        self._tally = tally = Tally()
        for page in oldest_first(self._source, Filter(states=_BURIED, text=_MARK)):
            self._finish([job for job in page if self._is_ours(job)])
        for page in oldest_first(self._target, Filter(queue=self._staging, states=_WAITING)):
            self._drop(page)
        return tally

    def _finish(self, sealed: list[Job]) -> None:
        self._tally.find(sealed)
        staged, home = [], []
        for job, copy in zip(sealed, self._target.get(_ids(sealed)), strict=True):
            if copy is None:
                # It has run and was forgotten there, or the target lost it; a person can tell, and deleting cannot be
                # undone.
                self._tally.leave(job, _UNKNOWN_THERE.format(id=job.id))
            elif copy.queue.startswith(INBOUND):
                staged.append(replace(copy, queue=job.queue))
            else:
                home.append(job)
        self._forget([*home, *self._release(staged)])

    def _drop(self, copies: Iterable[Job]) -> None:
        """Delete copies that the source did not give away.

        The source is asked first and the target once more after it: who is gone from the source before its copy is
        seen in the staging queue was not released by another move meanwhile.
        """
        asked = {job.id: job for job in copies}
        originals = self._source.get([*asked])
        kept = {job.id for job in originals if job is not None and self._is_ours(job)}
        staged = self._target.get([id for id in asked if id not in kept])
        _alter(self._target, [job for job in staged if job is not None and job.queue.startswith(INBOUND)], Delete())

    # -- waiting jobs -------------------------------------------------------------------------------------------------

    def _carry_waiting(self, jobs: list[Job]) -> None:
        staged = self._load(jobs, self._staging)
        self._forget(self._release(self._give_away(staged)))

    def _give_away(self, staged: list[Job]) -> list[Job]:
        """Bury jobs in the source as moved; the copies of those that no longer wait are dropped."""
        altered = _alter(self._source, staged, self._seal)
        changed = [job for job, one in altered if one.refused is not None]
        if changed:
            self._drop(changed)
        for job in changed:
            self._tally.leave(job, "it no longer waited when it was to be moved")
        return [job for job, one in altered if one.refused is None]

    def _release(self, jobs: list[Job]) -> list[Job]:
        """Bring the copies of jobs that were given away to their queues, in order; gives those that are there."""
        home: list[Job] = []
        for queue, together in groupby(sorted(jobs, key=_queue_of), key=_queue_of):
            altered = _alter(self._target, list(together), Edit(queue=queue))
            home += [job for job, one in altered if one.refused is None]
            astray = [job for job, one in altered if one.refused is not None]
            home += self._retrieve(astray) if astray else ()
        return home

    def _retrieve(self, jobs: list[Job]) -> list[Job]:
        """Put copies that are missing, or expired on their way, where they belong; the others are there already."""
        astray: list[Job] = []
        for job, copy in zip(jobs, self._target.get(_ids(jobs)), strict=True):
            if copy is None:
                astray.append(job)
            elif copy.queue.startswith(INBOUND) and copy.state is State.EXPIRED:
                astray.append(replace(copy, queue=job.queue))
        _alter(self._target, astray, Delete())
        lost = {job.id for job in astray}
        return [*(job for job in jobs if job.id not in lost), *self._load(astray, None)]

    def _forget(self, jobs: list[Job]) -> None:
        """Delete what was buried as moved, now that its copy is where it belongs."""
        for job, _ in _alter(self._source, jobs, Delete()):
            self._tally.move(job)

    # -- ended jobs ---------------------------------------------------------------------------------------------------

    def _carry_ended(self, jobs: list[Job]) -> None:
        gone, back = self._take_out(self._load(jobs, None))
        _alter(self._target, back, Delete())
        for job in gone:
            self._tally.move(job)

    def _take_out(self, jobs: list[Job]) -> tuple[list[Job], list[Job]]:
        """Delete jobs in the source that the target has; gives those that are gone, and those that run there again.

        One that was kicked since it was read is kicked in the target.
        """
        gone, back = [], []
        for job, one in _alter(self._source, jobs, Delete()):
            if one.refused is not None and one.before is not None:
                self._tally.leave(job, f"it was {one.before} again when it was to be moved")
                back.append(job)
                continue
            if one.before in WAITING and job.state.is_final:
                self._target.alter([job.id], Kick())
            gone.append(job)
        return gone, back

    # -- loading ------------------------------------------------------------------------------------------------------

    def _load(self, jobs: list[Job], queue: str | None) -> list[Job]:
        """Load jobs into the target, all into one queue if one is named; gives those that were not there before."""
        copies = [job if queue is None else replace(job, queue=queue) for job in jobs]
        if not copies:
            return []
        fresh: list[Job] = []
        known: list[Job] = []
        for job, answer in zip(jobs, load_each(self._target, copies), strict=True):
            if isinstance(answer, PenstockError):
                self._tally.leave(job, str(answer))
            else:
                (known if answer.existing else fresh).append(job)
        return [*fresh, *self._load_again(known, queue)] if known else fresh

    def _load_again(self, known: list[Job], queue: str | None) -> list[Job]:
        """Tell apart jobs that were moved before, which leave the source, and copies that were never released."""
        stale, there = [], []
        for job, copy in zip(known, self._target.get(_ids(known)), strict=True):
            if copy is not None and copy.queue.startswith(INBOUND) and not copy.state.is_final:
                stale.append(job)
            elif copy is not None and (copy.task, copy.created_ms) == (job.task, job.created_ms):
                there.append(job)
            else:
                self._tally.leave(job, "the target has another job of this id; delete one of the two")
        for job in self._take_out(there)[0]:
            self._tally.know(job)
        return self._replace(stale, queue)

    def _replace(self, stale: list[Job], queue: str | None) -> list[Job]:
        """Load jobs anew whose copies were never released; one that runs was let run by hand."""
        again = []
        for job, one in _alter(self._target, stale, Delete()):
            if one.refused is None:
                again.append(job)
            else:
                self._tally.leave(
                    job, f"its copy is {one.before} in a queue {INBOUND}… of the target, which was resumed"
                )
        return self._load(again, queue)

    # -- marks --------------------------------------------------------------------------------------------------------

    def _is_ours(self, job: Job) -> bool:
        return _is_sealed(job) and job.error is not None and job.error.message.endswith(self._ours)


_UNKNOWN_THERE = (
    "it was given to the target, which does not know it: either it has run there and was forgotten, then "
    "`penstock jobs delete {id}` here; or the target lost it, then `penstock jobs kick {id}` and move again"
)


def _states(history: bool) -> frozenset[State]:
    return _WAITING | _BURIED | _HISTORY if history else _WAITING | _BURIED


def _is_sealed(job: Job) -> bool:
    """Say whether a job was buried by a move, so that its copy counts."""
    return (
        job.state is State.BURIED
        and job.error is not None
        and job.error.kind == "buried"
        and job.error.message.startswith(_MARK)
    )


def _alter(engine: Engine, jobs: list[Job], alteration: Alteration) -> list[tuple[Job, Altered]]:
    """Change jobs and give each with its answer; for no jobs the store is not asked."""
    return list(zip(jobs, engine.alter(_ids(jobs), alteration), strict=True)) if jobs else []


def _ids(jobs: Sequence[Job]) -> list[JobId]:
    return [job.id for job in jobs]


def _queue_of(job: Job) -> str:
    return job.queue
