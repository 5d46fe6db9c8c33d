"""What a caller gets wrong is refused where it was said, with the value and the way out."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Penstock
from penstock.engine import Bury
from penstock.engines.checks import check_alteration, check_new_job
from penstock.engines.open import open_engine
from penstock.model.errors import ArgumentsInvalid, EngineUnknown, JobNotFound, SettingsInvalid, TaskInvalid
from penstock.model.job import Details, JobId, NewJob, Unique
from penstock.model.retry import Exponential, Fixed, Linear, Policy, Table
from penstock.model.states import State

LONE_SURROGATE = "\ud800"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Penstock]:
    with Penstock(f"sqlite:///{tmp_path}/shop.db") as app:
        yield app


def send(order_id: int = 0) -> int:
    return order_id


def wrong(value: object) -> Any:
    """Pass what the annotations forbid."""
    return value


@pytest.mark.parametrize(
    "backoff",
    [
        Fixed(wrong("5s")),
        Fixed(-1.0),
        Exponential(base_s=wrong("1s")),
        Exponential(jitter=wrong(True)),
        Exponential(max_s=float("inf")),
        Exponential(factor=float("nan")),
        Linear(wrong(None)),
        Table(wrong(("1s",))),
        Table((float("inf"),)),
    ],
    ids=repr,
)
def test_a_backoff_that_no_worker_could_read_is_refused(app: Penstock, backoff: Any) -> None:
    with pytest.raises(TaskInvalid, match=r"^backoff="):
        app.task(name="t", backoff=backoff)


def test_a_backoff_of_whole_numbers_in_a_list_is_taken_as_it_will_be_read(app: Penstock) -> None:
    task = app.task(name="t", backoff=Table(wrong([1, 5])))(send)
    assert task.policy.backoff == Table((1.0, 5.0))


@pytest.mark.parametrize(
    "unique",
    [
        Unique("{order_id}", until=wrong("forever")),
        Unique("{order_id}", clash=wrong("drop")),
        Unique("{order_id}", until="window"),
        Unique("{order_id}", until="window", window_ms=wrong("5m")),
        Unique("{order_id}", until="window", window_ms=2**70),
        Unique(wrong(5)),
    ],
    ids=repr,
)
def test_a_unique_rule_that_no_worker_could_read_is_refused(app: Penstock, unique: Unique) -> None:
    with pytest.raises(TaskInvalid, match=r"^unique="):
        app.task(send).using(unique=unique)


@pytest.mark.parametrize("option", ["max_attempts", "max_crashes"])
def test_counts_beyond_what_a_store_holds_are_refused(app: Penstock, option: str) -> None:
    with pytest.raises(TaskInvalid, match=r"give a whole number from \d to 1,000,000,000"):
        app.task(**wrong({"name": "t", option: 2**70}))


@pytest.mark.parametrize(
    "policy",
    [
        Policy(backoff=Fixed(wrong("5s"))),
        Policy(backoff=Exponential(max_s=float("inf"))),
        Policy(max_attempts=wrong(True)),
        Policy(retry_on=wrong((5,))),
    ],
    ids=repr,
)
def test_engines_refuse_a_policy_that_cannot_be_read_again(policy: Policy) -> None:
    job = NewJob(id=JobId("7"), task="t", envelope=b"{}", policy=policy)
    for _ in range(2):
        with pytest.raises(ValueError, match="Job 7 has a policy that cannot be stored"):
            check_new_job(job, "memory", frozenset())


def test_engines_refuse_a_policy_that_only_equals_a_sound_one() -> None:
    check_new_job(NewJob(id=JobId("6"), task="t", envelope=b"{}", policy=Policy(max_attempts=1)), "memory", frozenset())
    deceptive = NewJob(id=JobId("7"), task="t", envelope=b"{}", policy=Policy(max_attempts=wrong(True)))
    with pytest.raises(ValueError, match="Job 7 has a policy"):
        check_new_job(deceptive, "memory", frozenset())


@pytest.mark.parametrize(
    "details", [Details(unique=Unique("k", until=wrong("forever"))), Details(tags=wrong((5,)))], ids=repr
)
def test_engines_refuse_details_that_cannot_be_read_again(details: Details) -> None:
    with pytest.raises(ValueError, match="Job 7 has details that cannot be stored"):
        check_new_job(NewJob(id=JobId("7"), task="t", envelope=b"{}", details=details), "memory", frozenset())


def test_engines_refuse_a_reason_that_is_no_text() -> None:
    with pytest.raises(ValueError, match="5 is no text"):
        check_alteration(Bury(wrong(5)))


Step = Callable[[Penstock], object]

REFUSED: dict[str, tuple[Step, str]] = {
    "bury with a number": (lambda app: app.bury("7", reason=wrong(5)), "reason=5 is no text"),
    "bury with a surrogate": (lambda app: app.bury("7", reason=LONE_SURROGATE), "valid Unicode"),
    "find by a list of queues": (lambda app: app.find(queue=wrong(["a", "b"])), r"queue=\['a', 'b'\] is no text"),
    "find by a surrogate": (lambda app: app.find(text=LONE_SURROGATE), "valid Unicode"),
    "find by a tuple of tags": (lambda app: app.find(tag=wrong(("a",))), "is no text"),
    "find by a function": (lambda app: app.find(task=wrong(send)), "is no text"),
    "find an unknown state": (lambda app: app.find(state="foo"), "give any of .*ready.*buried"),
    "find a state that is no text": (lambda app: app.find(state=wrong(5)), "state=5 is no state"),
    "find half a job": (lambda app: app.find(limit=wrong(1.5)), "limit=1.5 is no such count; give a whole number"),
    "find so many in words": (lambda app: app.find(limit=wrong("5")), "limit='5' is no such count"),
    "find without a limit": (lambda app: app.find(limit=wrong(None)), "limit=None is no such count"),
    "find less than nothing": (lambda app: app.find(limit=-1), "limit=-1 is no such count"),
    "cancel nothing": (lambda app: app.cancel(wrong(None)), "None names no jobs; give an id"),
    "cancel a number": (lambda app: app.cancel(wrong(5)), "5 names no jobs"),
    "cancel bytes": (lambda app: app.cancel(wrong(b"abc")), "names no jobs"),
    "cancel a list of numbers": (lambda app: app.cancel(wrong([5])), "5 is no id of a job"),
    "ask for a job by number": (lambda app: app.job(wrong(7)), "7 is no id of a job"),
    "reschedule without a time": (lambda app: app.reschedule("7"), "give delay= or run_at="),
    "edit a list": (lambda app: app.edit(wrong(["7"]), priority=1), "is no id of a job"),
    "bound a queue without measure": (lambda app: app.queue("q").limit(max_jobs=2**70), "None lifts the bound"),
    "enqueue a number": (lambda app: app.enqueue(wrong(123)), "123 is no task's name"),
    "enqueue a name with NUL": (lambda app: app.enqueue("a\0b"), "without NUL"),
    "enqueue a function": (lambda app: app.enqueue(wrong(send)), "pass the function itself to app.task first"),
    "unknown term": (
        lambda app: app.using(prio=5),
        "A job has no option 'prio'. Did you mean 'priority'",
    ),
    "tags that are no list": (lambda app: app.using(tags=5), "tags=5 is no list"),
    "headers that are a list": (lambda app: app.using(headers=["a"]), r"headers=\['a'\] is no mapping"),
    "an option of other queues": (
        lambda app: app.task(**wrong({"retries": 5})),
        "Did you mean 'max_attempts'. Known: backoff, depends_on, fallback, give",
    ),
    "a misspelt option": (
        lambda app: app.task(**wrong({"max_attempt": 5})),
        "Did you mean 'max_attempts'. Known: backoff, depends_on, fallback, give",
    ),
    "an option like none": (
        lambda app: app.task(**wrong({"xyzzy": 5})),
        "Known: backoff, depends_on, fallback, give_up_on",
    ),
    "a misspelt exception": (lambda app: app.task(retry_on="ValueEror"), "Did you mean 'ValueError'"),
    "a class without a signature": (lambda app: app.task(name="c")(int), "is a class; wrap it in a function"),
    "a misspelt term": (lambda app: app.task(send).using(prio=5), "'prio'. Did you mean 'priority'. Known: .*queue"),
    "a misspelt option of a command": (lambda app: app.command("c", ["true"], prio=5), "Did you mean 'priority'"),
    "a runner of a command": (
        lambda app: app.command("c", ["true"], **wrong({"runner": "thread"})),
        "has no option",
    ),
    "a name given twice": (lambda app: app.command("c", ["true"], **wrong({"name": "d"})), "has no option 'name'"),
    "a command that is a number": (lambda app: app.command("c", wrong(5)), "The command of task 'c' is 5"),
    "an unknown clash": (lambda app: app.using(unique=Unique("k", clash=wrong("drop"))), "'keep', 'replace', 'refuse'"),
    "an unknown end of a key": (
        lambda app: app.task(send).using(unique=Unique("k", until=wrong("soon"))),
        "until='soon'; give one of 'started', 'ended', 'window'",
    ),
    "a name with NUL": (lambda app: app.task(name="a\0b"), "without NUL"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_with_the_way_out(app: Penstock, case: str) -> None:
    step, told = REFUSED[case]
    with pytest.raises(TaskInvalid, match=told):
        step(app)


@pytest.mark.parametrize(
    ("change", "told"),
    [({"args": 7}, "args=7 is no list"), ({"args": "7"}, "args='7' is no list"), ({"kwargs": [1]}, "by name")],
)
def test_new_arguments_of_a_wrong_form_are_refused(app: Penstock, change: dict[str, Any], told: str) -> None:
    job = app.enqueue("shop.send", 7)
    with pytest.raises(TaskInvalid, match=told):
        app.edit(job, **change)


def test_many_calls_that_are_no_list_are_refused(app: Penstock) -> None:
    with pytest.raises(ArgumentsInvalid, match="takes a list of tuples"):
        app.task(send).enqueue_many(wrong(5))


def test_an_id_that_no_store_could_hold_is_not_found(app: Penstock) -> None:
    with pytest.raises(JobNotFound):
        app.job(LONE_SURROGATE)


def test_a_url_given_as_the_engine_is_told_its_place() -> None:
    with pytest.raises(SettingsInvalid, match="give a URL as Penstock") as caught:
        Penstock(engine=wrong("https://me:secret@host"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("orders.db", "write sqlite:///orders.db"),
        ("https://me:secret@host", "no engine"),
        ("sqlit:///orders.db", "Did you mean sqlite:///orders.db"),
        ("sqlite://me:secret@orders.db", "write three"),
        ("me:secret@host/x.db", "is no URL"),
        ("sqlite:///x.db?durabilty=normal", "Did you mean 'durability'"),
        ("sqlite:///x.db?durability=some", "it is full"),
        ("memory://?timeout=1s", "It takes none"),
    ],
)
def test_a_wrong_url_is_refused_where_it_is_given(url: str, told: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        Penstock(url)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_options_are_checked_where_they_are_given() -> None:
    with pytest.raises(SettingsInvalid, match="Did you mean max_payload"):
        Penstock("memory://", max_paylod="1M")


def test_a_url_that_is_no_text_is_told_what_one_is() -> None:
    with pytest.raises(SettingsInvalid, match=r"url = 5 \(argument\) is no URL of a store; give one such as"):
        assert Penstock(wrong(5)).settings


@pytest.mark.parametrize(
    "url",
    ["sqlite:///a#b.db", "sqlite://[::1", f"sqlite:///{'x' * 300}.db", f"sqlite:///{LONE_SURROGATE}.db"],
    ids=["fragment", "bracket", "long", "surrogate"],
)
def test_urls_that_no_file_answers_to_are_refused_and_make_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineUnknown, match=r"write|Write"):
        open_engine(url)
    assert not list(tmp_path.iterdir())


def test_exceptions_of_others_are_taken_by_name(app: Penstock) -> None:
    task = app.task(name="t", retry_on=["shop.OutOfPaper", "ValueError", "OutOfPaper"])(send)
    assert task.policy.retry_on == ("shop.OutOfPaper", "builtins.ValueError", "OutOfPaper")


def test_what_was_found_can_be_handed_on(app: Penstock) -> None:
    task = app.task(send)
    job = task.enqueue(7)
    assert app.bury(app.find(task=task))[0].after is State.BURIED
    assert app.kick(app.find(state="buried"))[0].after is State.READY
    assert app.job(job) == app.job(app.find()[0]) == job
    assert app.edit(app.find()[0], priority=1).refused is None


def test_a_task_is_enqueued_by_itself_too(app: Penstock) -> None:
    task = app.task(send)
    assert app.enqueue(task, 7).task == task.name
    assert app.using(priority=5).enqueue(task, 7).info().priority == 5


def test_a_task_may_take_an_argument_called_self(app: Penstock) -> None:
    assert b'"kwargs":{"self":1}' in app.enqueue("x", self=1).info().envelope
    task = app.task(name="named")(lambda **given: given["self"])
    assert b'"kwargs":{"self":1}' in task.enqueue(self=1).info().envelope
    assert b'"kwargs":{"self":1}' in task.bind(self=1).enqueue().info().envelope
    assert task(self=1) == 1


def test_new_arguments_may_be_as_large_as_the_settings_allow(tmp_path: Path) -> None:
    with Penstock(f"sqlite:///{tmp_path}/shop.db", max_payload="4M") as app:
        job = app.enqueue("shop.send", "x")
        assert app.edit(job, args=["x" * 2_000_000]).refused is None
        assert app.edit(job, args=[], kwargs={"text": "x" * 2_000_000}).refused is None


def test_a_moment_for_rescheduling_is_enough(app: Penstock) -> None:
    job = app.enqueue("shop.send", 7)
    assert app.reschedule(job, run_at=datetime(2100, 1, 1, tzinfo=UTC))[0].after is State.SCHEDULED


def test_an_argument_that_is_no_parameter_is_named_before_the_one_that_is_missing(app: Penstock) -> None:
    def write(to: str, subject: str) -> None: ...

    task = app.task(name="write")(write)
    with pytest.raises(ArgumentsInvalid, match=r"no parameter 'subjcet'\. Did you mean 'subject'\? It takes \(to: str"):
        task.enqueue("ada", **wrong({"subjcet": "tea"}))


def test_a_key_template_that_names_no_parameter_is_told_which_there_are(app: Penstock) -> None:
    def write(to: str, subject: str) -> None: ...

    task = app.task(name="write")(write)
    with pytest.raises(ArgumentsInvalid, match=r"there is no 'nosuch'\. It may name to, subject\."):
        task.using(unique="{nosuch}").enqueue("ada", "tea")
