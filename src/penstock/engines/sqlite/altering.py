"""What a person does to jobs by hand, as the transition table allows."""

from typing import Any, assert_never

from penstock.engine import Alteration, Altered, Bury, Cancel, Delete, Edit, Kick, Reschedule, Upgrade
from penstock.engines.checks import refusal
from penstock.engines.forms import counters_in, counters_out, details_in, details_out
from penstock.engines.sqlite.ending import Waiting, end_waiting
from penstock.engines.sqlite.queries import SQL
from penstock.engines.sqlite.step import LaneKey, Step, numbers
from penstock.engines.sqlite.tending import forget_ended
from penstock.engines.steering import (
    Place,
    Standing,
    edited,
    error_of_burial,
    kicked_ms,
    lifted_ms,
    may_alter,
    refused_upgrade,
    renewed,
    rescheduled_ms,
    returning,
)
from penstock.model.job import Details, JobId
from penstock.model.states import State


def alter(step: Step, id: JobId, alteration: Alteration) -> Altered:
    """Change one job, or say why it was left alone."""
    row = step.db.execute(SQL["hot_row"], (id,)).fetchone()
    if row is not None:
        return _alter_unfinished(step, row, alteration)
    row = step.db.execute(SQL["cold_row"], (id,)).fetchone()
    if row is not None:
        return _alter_ended(step, row, alteration)
    return Altered(id, None, None, refusal(None))


# -- unfinished jobs --------------------------------------------------------------------------------------------------


def _alter_unfinished(step: Step, row: tuple[Any, ...], alteration: Alteration) -> Altered:
    job = Waiting.from_row(row)
    id = JobId(job.id)
    if job.due_ms is None and not row[-1]:
        return _alter_running(step, job, alteration)
    if not may_alter(job.state, alteration):
        return Altered(id, job.state, job.state, refusal(job.state))
    return Altered(id, job.state, _change_waiting(step, job, row, alteration))


def _alter_running(step: Step, job: Waiting, alteration: Alteration) -> Altered:
    id = JobId(job.id)
    if not isinstance(alteration, Cancel):
        return Altered(id, State.RUNNING, State.RUNNING, refusal(State.RUNNING))
    for statement in ("ask_cancel", "steer_holder"):
        step.db.execute(SQL[statement], (job.id,))
    step.steer = True
    return Altered(id, State.RUNNING, State.RUNNING)


def _change_waiting(step: Step, job: Waiting, row: tuple[Any, ...], alteration: Alteration) -> State | None:
    match alteration:
        case Cancel():
            end_waiting(step, [job], State.CANCELLED)
            return State.CANCELLED
        case Bury():
            key = step.lane_key(job.lane)
            end_waiting(step, [job], State.BURIED, error_of_burial(alteration, key.queue, key.task))
            return State.BURIED
        case Delete():
            _delete_waiting(step, job)
            return None
        case Kick():
            return _kick_scheduled(step, job, row, alteration)
        case Reschedule():
            _reschedule(step, job, alteration)
            return State.SCHEDULED
        case Edit():
            _edit_waiting(step, job, row, alteration)
            return job.state
        case Upgrade():
            raise AssertionError("the transition table upgrades ended jobs alone")
        case _ as unknown:
            assert_never(unknown)


def _delete_waiting(step: Step, job: Waiting) -> None:
    """End the job first, so that one path frees all that it holds."""
    end_waiting(step, [job], State.CANCELLED)
    row = step.db.execute(SQL["cold_row"], (job.id,)).fetchone()
    forget_ended(step, [(row[0], row[1], row[2], row[3], row[4])])


def _kick_scheduled(step: Step, job: Waiting, row: tuple[Any, ...], kick: Kick) -> State:
    fresh = renewed(kick, counters_in(row[8]), step.policy_value(job.policy).at(row[11]))
    lane = step.lane(step.lane_key(job.lane)._replace(alone=fresh.runs_alone))
    due_ms = kicked_ms(kick, step.now_ms)
    seq = step.draw_seq() if due_ms is None else 0
    step.db.execute(SQL["kick_scheduled"], (lane, seq, due_ms, counters_out(fresh), step.now_ms, job.id))
    step.count(job.lane, State.SCHEDULED, -1)
    return _stand(step, lane, job.rank, seq, job.id, due_ms)


def _reschedule(step: Step, job: Waiting, alteration: Reschedule) -> None:
    due_ms = rescheduled_ms(alteration, step.now_ms)
    step.db.execute(SQL["reschedule"], (due_ms, job.id))
    if job.state is State.READY:
        step.db.execute(SQL["drop_ready"], (job.lane, job.rank, job.seq))
        step.count(job.lane, State.READY, -1)
        step.count(job.lane, State.SCHEDULED, 1)
    step.due = True


def _edit_waiting(step: Step, job: Waiting, row: tuple[Any, ...], edit: Edit) -> None:
    """Change a job where it stands; in another lane or with another priority it goes to the end of its line."""
    key = step.lane_key(job.lane)
    was = Standing(key.queue, -job.rank, step.now_ms)
    details, envelope, crc = edited(details_in(job.details), row[9], row[10], edit, was)
    lane = step.lane(key if edit.queue is None else key._replace(queue=edit.queue))
    rank = job.rank if edit.priority is None else -edit.priority
    moves = (lane, rank) != (job.lane, job.rank)
    seq = step.draw_seq() if moves and job.state is State.READY else job.seq
    step.db.execute(SQL["edit"], (lane, rank, seq, crc, details_out(details), envelope, job.id))
    if moves and job.state is State.READY:
        step.db.execute(SQL["drop_ready"], (job.lane, job.rank, job.seq))
        _put_ready(step, lane, rank, seq, job.id)
    step.count(job.lane, job.state, -1)
    step.count(lane, job.state, 1)


def _stand(step: Step, lane: int, rank: int, seq: int, id: str, due_ms: int | None) -> State:
    """Let a job that begins anew wait for its time, or take its place in line; gives its state."""
    if due_ms is None:
        _put_ready(step, lane, rank, seq, id)
    else:
        step.due = True
    state = State.READY if due_ms is None else State.SCHEDULED
    step.count(lane, state, 1)
    return state


def _put_ready(step: Step, lane: int, rank: int, seq: int, id: str) -> None:
    step.db.execute(SQL["add_ready"], (lane, rank, seq, id, step.now_ms))
    step.work = True


# -- ended jobs -------------------------------------------------------------------------------------------------------


def _alter_ended(step: Step, row: tuple[Any, ...], alteration: Alteration) -> Altered:
    id, state = JobId(row[1]), State(row[3])
    if not may_alter(state, alteration):
        return Altered(id, state, state, refusal(state))
    if isinstance(alteration, Delete):
        forget_ended(step, [(row[0], row[1], row[2], row[3], row[4])])
        return Altered(id, state, None)
    details = details_in(row[4])
    refused = refused_upgrade(alteration, details) or _key_refusal(step, id, details)
    if refused is not None:
        return Altered(id, state, state, refused)
    key = step.lane_key(row[2])
    going_on = returning(alteration, Place(key.task, key.queue, row[10]), details)
    return Altered(id, state, _revive(step, row, alteration, *going_on))


def _key_refusal(step: Step, id: JobId, details: Details) -> str | None:
    """Refuse to bring a job back while another holds the key that it held until it ended."""
    unique = details.unique
    if unique is None or unique.until != "ended":
        return None
    row = step.db.execute(SQL["unique_holder"], (unique.key, step.now_ms)).fetchone()
    return None if row is None or row[0] == id else f"unique key {unique.key!r} is held by {row[0]}"


def _revive(step: Step, row: tuple[Any, ...], alteration: Alteration, place: Place, details: Details) -> State:
    """Bring an ended job back with new chances; a deadline that has passed would end it again, so it is lifted."""
    ended, id, old_lane, state, _, stored_counters, stored_envelope, stored_crc, old_rank, expires_ms, _, policy = row
    edit = alteration if isinstance(alteration, Edit) else Edit()
    counters = renewed(alteration, counters_in(stored_counters), step.policy_value(policy).at(place.stage))
    was = Standing(place.queue, -old_rank, step.now_ms)
    details, envelope, crc = edited(details, stored_envelope, stored_crc, edit, was)
    fair_key = step.lane_key(old_lane).fair_key
    lane = step.lane(LaneKey(edit.queue or place.queue, place.task, fair_key, counters.runs_alone))
    rank = old_rank if edit.priority is None else -edit.priority
    due_ms = kicked_ms(alteration, step.now_ms)
    seq = step.draw_seq() if due_ms is None else 0
    values = {
        "seq": seq,
        "due_ms": due_ms,
        "lane": lane,
        "rank": rank,
        "crc": crc,
        "expires_ms": lifted_ms(expires_ms, step.now_ms),
        "details": details_out(details),
        "envelope": envelope,
        "counters": counters_out(counters),
        "stage": place.stage,
        "ended": ended,
    }
    step.db.execute(SQL["revive"], values)
    step.db.execute(SQL["drop_ended"], (numbers([ended]),))
    if details.unique is not None and details.unique.until == "ended":
        step.db.execute(SQL["hold_unique"], (details.unique.key, id, None))
    step.count(old_lane, State(state), -1)
    return _stand(step, lane, rank, seq, id, due_ms)


# -- queues -----------------------------------------------------------------------------------------------------------


def alter_queue(step: Step, name: str, paused: bool | None, max_jobs: int | None, unlimited: bool) -> None:
    """Set a queue's switches; a resumed queue counts as news for those who wait for work."""
    step.db.execute(SQL["add_queue"], (name,))
    if paused is not None:
        was_paused = step.db.execute(SQL["is_paused"], (name,)).fetchone()[0]
        step.db.execute(SQL["set_paused"], (paused, name))
        if was_paused and not paused:
            step.draw_seq()
            step.work = True
    if unlimited or max_jobs is not None:
        step.db.execute(SQL["set_max_jobs"], (None if unlimited else max_jobs, name))
        step.db.execute(SQL["count_bounds"])
