"""What the rule machine draws: jobs, wants, outcomes, alterations, filters, few enough of each to clash."""

from hypothesis import strategies as st
from msgspec.structs import replace

from penstock.engine import (
    Alteration,
    Bury,
    Cancel,
    Delete,
    Edit,
    Filter,
    Kick,
    Reschedule,
    Upgrade,
    Want,
)
from penstock.model.job import (
    Counters,
    Details,
    ErrorInfo,
    Home,
    Job,
    JobId,
    NewJob,
    ProcessId,
    Unique,
)
from penstock.model.outcome import Ending, Outcome
from penstock.model.retry import Fixed, Policy, Stage
from penstock.model.states import FINAL, State

LEASE_MS = 5000
RUNNERS = {"a": "thread", "b": "thread", "c": "process"}
QUEUES = ("default", "mail", "slow")
PROCESSES = tuple(ProcessId(f"p{number}") for number in range(4))
GHOST = JobId("ghost")
UNNAMED = JobId("")
WORKER_OF = {process: f"w{number % 2}" for number, process in enumerate(PROCESSES)}

POLICIES = (
    Policy(backoff=Fixed(1.0), keep_ms=4000),
    Policy(max_attempts=2, backoff=Fixed(0.0), keep_ms=60_000),
    Policy(max_attempts=1, max_crashes=0, keep_ms=0),
    Policy(
        max_attempts=1,
        max_crashes=1,
        fallbacks=(
            Stage("b", "slow", Policy(max_attempts=2, max_crashes=2, backoff=Fixed(0.0))),
            Stage("c", "default", Policy(max_attempts=1), on=("crash", "lost")),
        ),
    ),
)

places = st.sampled_from(["", "shop:send"])
durations = st.sampled_from([0, 1, 999, 1000, 3000])
uniques = st.builds(
    Unique,
    key=st.sampled_from(["k", "l"]),
    until=st.sampled_from(["started", "ended", "window"]),
    window_ms=st.sampled_from([1, 2000]),
    clash=st.sampled_from(["keep", "replace", "refuse"]),
)
details = st.builds(
    Details,
    tags=st.sampled_from([(), ("red",), ("red", "blue")]),
    unique=st.none() | uniques,
    idempotency_key=st.sampled_from([None, None, None, "i", "j"]),
)
wants = st.builds(
    Want,
    tasks=st.sampled_from([RUNNERS, RUNNERS, RUNNERS, {"a": "thread"}, {"b": "thread", "c": "process"}]),
    free=st.sampled_from(
        [
            {"thread": 9, "process": 9},
            {"thread": 9, "process": 9},
            {"thread": 1, "process": 1},
            {"thread": 2},
            {"process": 3},
        ]
    ),
    queues=st.sampled_from([None, None, None, (QUEUES,), (("mail",), ("default", "slow")), (("slow",),)]),
    limit=st.sampled_from([1, 3, 1000, 1000]),
)
endings = st.sampled_from(
    [Ending.SUCCEEDED, Ending.SUCCEEDED, Ending.FAILED, Ending.TIMED_OUT, Ending.CRASHED, Ending.LOST,
     Ending.SNOOZED, Ending.RELEASED, Ending.CANCELLED]
)  # fmt: skip
alterations: st.SearchStrategy[Alteration] = st.one_of(
    st.just(Cancel()),
    st.just(Cancel()),
    st.just(Kick()),
    st.builds(Kick, delay_ms=durations, trial=st.booleans()),
    st.just(Delete()),
    st.just(Upgrade()),
    st.builds(Bury, reason=st.sampled_from(["wrong", "odd"])),
    st.builds(Reschedule, run_at_ms=st.sampled_from([None, None, 1]), delay_ms=durations),
    st.builds(
        Edit,
        envelope=st.sampled_from([None, b'{"v":1,"task":"a","args":[9]}']),
        queue=st.sampled_from([None, "mail"]),
        priority=st.sampled_from([None, 0, 5]),
        tags=st.sampled_from([None, ("new",)]),
        by=st.sampled_from(["", "ada"]),
    ),
)
some = st.lists(st.integers(0, 99), min_size=1, max_size=4)
processes = st.sampled_from(PROCESSES)
picks = st.none() | st.integers(0, 99)
filters = st.builds(
    Filter,
    queue=st.sampled_from([None, "mail", "nowhere"]),
    states=st.none() | st.frozensets(st.sampled_from(list(State))),
    task=st.sampled_from([None, "a"]),
    tag=st.sampled_from([None, "red", "re"]),
    degraded=st.sampled_from([None, None, True, False]),
    text=st.sampled_from([None, "JOB-00", "odd", "[0]", "ODD", "nothing"]),
    before=st.sampled_from([None, JobId("job-005")]),
    limit=st.sampled_from([1, 3, 1000]),
)


@st.composite
def new_jobs(draw: st.DrawFn) -> NewJob:
    """Draw a job without an id; half of them are plain."""
    task, plain = draw(st.sampled_from("aabc")), draw(st.booleans())
    return NewJob(
        id=UNNAMED,
        task=task,
        envelope=f'{{"v":1,"task":"{task}","args":[{draw(st.sampled_from([0, 0, 0, 1]))}]}}'.encode(),
        crc=draw(st.sampled_from([None, 7])),
        queue=draw(st.sampled_from(QUEUES)),
        priority=draw(st.sampled_from([0, 0, 5, -100])),
        delay_ms=0 if plain else draw(durations),
        expires_in_ms=None if plain else draw(st.sampled_from([None, None, 1, 2000])),
        policy=draw(st.sampled_from(POLICIES)),
        details=Details() if plain else draw(details),
    )


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    ending = draw(endings)
    failed = ending in (Ending.FAILED, Ending.TIMED_OUT, Ending.CRASHED, Ending.LOST)
    return Outcome(
        ending=ending,
        result=draw(st.sampled_from([b"1", b'"two"'])) if ending is Ending.SUCCEEDED else None,
        error=ErrorInfo(ending.value, message=draw(st.sampled_from(["odd", "even"])), where=draw(places))
        if failed
        else None,
        after_ms=draw(st.sampled_from([None, 0, 1000])),
        started=draw(st.booleans()),
        cancel_requested=draw(st.booleans()),
        ran_us=draw(st.integers(0, 9)),
    )


@st.composite
def loaded_jobs(draw: st.DrawFn) -> Job:
    """Draw a job of another store without an id; its times lie around zero, to be added to the time of day."""
    new = draw(new_jobs())
    state = draw(st.sampled_from([State.READY, State.READY, State.SCHEDULED, *sorted(FINAL)]))
    history = tuple(
        ErrorInfo("failed", message=f"odd {n}", at_ms=n) for n in range(draw(st.sampled_from([0, 0, 1, 21])))
    )
    stage = draw(st.sampled_from([0, 0, 1]))
    details = replace(new.details, home=Home("a", "mail")) if stage else new.details
    return Job(
        id=UNNAMED,
        state=state,
        task=new.task,
        queue=new.queue,
        envelope=new.envelope,
        priority=new.priority,
        policy=new.policy,
        details=details,
        stage=stage,
        counters=Counters(attempts=draw(st.sampled_from([0, 0, 1])), crashes=draw(st.sampled_from([0, 0, 1]))),
        claim_number=draw(st.sampled_from([0, 0, 3])),
        cancel_requested=not state.is_final and draw(st.booleans()),
        created_ms=draw(st.sampled_from([-3000, -1000, 0])),
        due_ms=draw(st.sampled_from([-1, 0, 1000])) if state is State.SCHEDULED else None,
        expires_ms=draw(st.sampled_from([None, None, 1, 2000])),
        ended_ms=draw(st.sampled_from([-5000, 0])) if state.is_final else None,
        error=draw(st.sampled_from([None, history[-1]])) if history else None,
        history=history[-20:],
        result=b"3" if state is State.SUCCEEDED else None,
        degraded=new.task if stage and state is State.SUCCEEDED else None,
    )
