import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client import Penstock
from penstock.model.codec import decode_envelope
from penstock.model.errors import (
    ArgumentsInvalid,
    DurationInvalid,
    PayloadInvalid,
    PayloadTooLarge,
    TaskInvalid,
    Unsupported,
)
from penstock.model.job import NewJob, Unique
from penstock.model.retry import DEFAULT_POLICY, Exponential, Fixed, Table
from penstock.task import Task


class Color(Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


class Row(TypedDict):
    name: str


class Box(msgspec.Struct):
    width: float


@dataclass
class Item:
    name: str
    price: Decimal = Decimal("1.50")


class Connection:
    """A class that JSON knows nothing of."""


def one(value: Any) -> None: ...


def two(first: Any, second: Any = None) -> None: ...


def one_and_more(first: Any, **more: Any) -> None: ...


def lowered(_n: int, text: str) -> str:
    return text.lower()


def a_task(function: Callable[..., Any], **options: Any) -> Task[..., Any]:
    options.setdefault("name", "shop.task")
    made: Task[..., Any] = Penstock("memory://").task(**options)(function)
    return made


def there_and_back(task: Task[..., Any], job: NewJob) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return task.decode(decode_envelope(job.envelope, job.crc))


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 7),
        (float, 1.5),
        (str, "ü\x00\u2028"),
        (bool, True),
        (bytes, b"\x00\xff"),
        (int | None, None),
        (Decimal, Decimal("1.10")),
        (UUID, UUID(int=7)),
        (datetime, datetime(2030, 1, 1, tzinfo=UTC)),
        (timedelta, timedelta(seconds=90)),
        (Color, Color.RED),
        (Point, Point(1, 2)),
        (Row, {"name": "x"}),
        (Box, Box(1.5)),
        (Item, Item("x", Decimal(3))),
        (list[Item], [Item("x")]),
        (dict[str, tuple[int, ...]], {"a": (1, 2)}),
        (set[int], {1, 2}),
        (Path, Path("/tmp/x")),
        (list[Path | None], [Path("a"), None]),
        (Any, {"a": [1, None, "x"]}),
    ],
)
def test_an_argument_arrives_as_its_annotation_says(annotation: Any, value: Any) -> None:
    def job(value): ...  # type: ignore[no-untyped-def]

    job.__annotations__ = {"value": annotation}
    task = a_task(job)
    assert there_and_back(task, task.new_job((value,), {})) == ((value,), {})
    assert there_and_back(task, task.new_job((), {"value": value})) == ((), {"value": value})


@pytest.mark.parametrize(
    ("annotation", "value", "told"),
    [
        (int, "7", "value is '7'; expected int, got str"),
        (int, True, "value is True; expected int, got bool"),
        (int, 1.0, "value is 1.0; expected int, got float"),
        (str, datetime(2030, 1, 1), "expected str, got datetime"),
        (str | None, UUID(int=7), "got UUID"),
        (bytes, "eA==", "expected bytes, got str"),
        (bool, 1, "expected bool, got int"),
        (float, "1.5", "expected float, got str"),
        (Item, Item("x", "dear"), "value.price is 'dear'"),  # type: ignore[arg-type]
        (list[int], [1, "x"], "value[1] is 'x'; expected int, got str"),
        (Item, {"price": 1}, "missing required field `name`"),
        (Color, "blue", "value is 'blue'; expected tests.client.test_task.Color (one of "),
        (UUID, "x", "value is 'x'; expected a UUID such as 6f1b"),
        (date, "x", "value is 'x'; expected a date such as 2030-01-07."),
        (date | None, 5, "value is 5; expected a date such as 2030-01-07 or None, got int."),
        (datetime, "2030-01-07", "expected a date and time such as 2030-01-07T08:00:00Z."),
        (time, "8", "expected a time such as 08:00:00."),
        (timedelta, "1h", "expected a duration such as PT1H30M."),
        (list[Decimal], ["dear"], "value[0] is 'dear'; expected a decimal number such as 12.50."),
        (tuple[int, date], [1, "x"], "value[1] is 'x'; expected a date such as"),
        (dict[str, date], {"due": "x"}, "value[...] is {'due': 'x'}; expected a date such as"),
        (Literal["a", "b"], "c", "value is 'c'; expected one of 'a', 'b'."),
        (Item, 1, "value is 1; expected tests.client.test_task.Item (an object with name, "),
        (list[Item | None], [1], "value[0] is 1; expected tests.client.test_task.Item (an object with name, "),
    ],
)
def test_an_argument_that_does_not_fit_is_named_with_what_was_expected(annotation: Any, value: Any, told: str) -> None:
    def job(value): ...  # type: ignore[no-untyped-def]

    job.__annotations__ = {"value": annotation}
    task = a_task(job)
    for args, kwargs in [((value,), {}), ((), {"value": value})]:
        with pytest.raises(ArgumentsInvalid) as caught:
            task.enqueue(*args, **kwargs)
        assert told in str(caught.value)
        assert caught.value.task == "shop.task"
        assert caught.value.path.startswith("value")


@pytest.mark.parametrize(
    "value", [float("nan"), [float("inf")], 2**63, "\ud800", {"a": {"b": -(2**63) - 1}}, object(), {1: object()}]
)
def test_what_json_cannot_carry_is_refused_by_parameter(value: Any) -> None:
    task = a_task(two)
    with pytest.raises(PayloadInvalid, match="second"):
        task.enqueue(1, value)
    with pytest.raises(PayloadInvalid, match="second"):
        task.enqueue(1, second=value)


def test_endless_and_deep_nesting_are_refused() -> None:
    task = a_task(one)
    endless: list[Any] = []
    endless.append(endless)
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    for value in (endless, deep):
        with pytest.raises(PayloadInvalid, match="nested deeper than 64"):
            task.enqueue(value)


def test_arguments_over_the_limit_are_refused() -> None:
    app = Penstock("memory://", max_payload="1K")
    task = app.task(name="shop.task")(one)
    task.enqueue("x" * 900)
    with pytest.raises(PayloadTooLarge, match="over the limit of 1,024"):
        task.enqueue("x" * 1100)
    with pytest.raises(PayloadTooLarge):
        task.enqueue("x" * 1010)
    with pytest.raises(PayloadTooLarge, match="result"):
        task.encode_result("x" * 1100)


def test_missing_unknown_and_doubled_arguments_are_refused() -> None:
    def job(a: int, /, b: int, *, c: int = 0) -> None: ...

    task = a_task(job)
    for args, kwargs in [((), {}), ((1,), {}), ((1, 2, 3), {}), ((1, 2), {"b": 3}), ((1, 2), {"d": 3}), ((), {"a": 1})]:
        with pytest.raises(ArgumentsInvalid, match="It takes"):
            task.new_job(args, kwargs)
    assert there_and_back(task, task.new_job((1,), {"b": 2, "c": 3})) == ((1,), {"b": 2, "c": 3})


def test_variadic_arguments_are_checked_and_converted() -> None:
    def job(first: int, *rest: Decimal, **named: UUID) -> None: ...

    task = a_task(job)
    args, kwargs = (1, Decimal(2), Decimal(3)), {"x": UUID(int=1)}
    assert there_and_back(task, task.new_job(args, kwargs)) == (args, kwargs)
    with pytest.raises(ArgumentsInvalid, match="rest is 'x'"):
        task.enqueue(1, Decimal(2), "x")
    with pytest.raises(ArgumentsInvalid, match="y is 7"):
        task.enqueue(1, y=7)


def test_defaults_are_not_stored() -> None:
    def job(a: int, b: int = 2) -> None: ...

    task = a_task(job)
    assert there_and_back(task, task.new_job((1,), {})) == ((1,), {})


def test_stored_arguments_that_no_longer_fit_are_refused_when_read() -> None:
    old = a_task(two)
    envelope = decode_envelope(*old.pack((1, "x"), {}))

    def fewer(a: int) -> None: ...
    def other(a: int, b: int) -> None: ...

    for function in (fewer, other):
        with pytest.raises(ArgumentsInvalid):
            a_task(function).decode(envelope)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
        max_leaves=20,
    )
)
def test_any_json_travels_unchanged(value: Any) -> None:
    assert there_and_back(ANYTHING, ANYTHING.new_job((value,), {"value": value})) == ((value,), {"value": value})


ANYTHING = a_task(one_and_more)


def later(node: "Node") -> "Node":
    return node


LATER = a_task(later)


@dataclass
class Node:
    child: "Node | None" = None


def test_annotations_may_name_what_is_defined_below() -> None:
    node = Node(Node())
    assert there_and_back(LATER, LATER.new_job((node,), {})) == ((node,), {})


def test_an_annotation_that_json_cannot_serve_is_refused_at_registration() -> None:
    def job(connection: list[Connection]) -> None: ...

    with pytest.raises(TaskInvalid, match=r"'connection'.*Connection"):
        a_task(job)


def test_an_annotation_known_to_type_checkers_alone_is_refused_at_first_use() -> None:
    def job(value): ...  # type: ignore[no-untyped-def]

    job.__annotations__ = {"value": "Unknown"}
    task = a_task(job)
    with pytest.raises(TaskInvalid, match="TYPE_CHECKING"):
        task.enqueue(1)


# -- results ----------------------------------------------------------------------------------------------------------


def test_a_result_is_read_as_the_annotation_says() -> None:
    def job() -> Item:
        return Item("x")

    task = a_task(job)
    assert task.decode_result(task.encode_result(job())) == Item("x")
    with pytest.raises(PayloadInvalid, match="not what its annotation says"):
        task.decode_result(b"7")


def test_a_result_that_cannot_travel_is_refused() -> None:
    for value in (object(), float("nan"), (n for n in range(3))):
        with pytest.raises(PayloadInvalid, match=r"The result of task 'shop\.task'"):
            ANYTHING.encode_result(value)


def test_a_result_without_a_usable_annotation_is_plain_json() -> None:
    def job() -> Connection:
        return Connection()

    assert a_task(job).decode_result(b'{"a":1}') == {"a": 1}


# -- registration -----------------------------------------------------------------------------------------------------


def at_top(n: int) -> int:
    return n + 1


async def at_top_async(n: int) -> int:
    return n + 1


def test_a_task_is_still_its_function() -> None:
    app = Penstock("memory://")
    task = app.task(at_top)
    assert task(1) == 2
    assert task.name == f"{__name__}.at_top"
    assert (task.__name__, task.__wrapped__) == ("at_top", at_top)
    assert app.tasks == {task.name: task}


def test_runner_follows_the_kind_of_function() -> None:
    app = Penstock("memory://")
    assert app.task(at_top).runner == "thread"
    assert app.task(at_top_async).runner == "loop"
    assert app.task(runner="process", name="other")(at_top).runner == "process"


@pytest.mark.parametrize(("function", "runner"), [(at_top_async, "thread"), (at_top, "loop"), (at_top, "http")])
def test_a_runner_that_does_not_fit_is_refused(function: Callable[..., Any], runner: str) -> None:
    with pytest.raises(TaskInvalid, match="runner="):
        Penstock("memory://").task(runner=runner)(function)


def test_functions_no_worker_could_find_are_refused_without_a_name() -> None:
    app = Penstock("memory://")

    def nested() -> None: ...

    for function in (nested, lambda: None):
        with pytest.raises(TaskInvalid, match="give name="):
            app.task(function)
        app.task(name=f"named.{id(function)}")(function)


def test_one_name_for_two_functions_is_refused() -> None:
    app = Penstock("memory://")
    app.task(name="same")(at_top)
    app.task(name="same")(at_top)
    with pytest.raises(TaskInvalid, match="at_top_async"):
        app.task(name="same")(at_top_async)


def test_a_task_of_a_task_is_refused() -> None:
    app = Penstock("memory://")
    with pytest.raises(TaskInvalid, match="a task already"):
        app.task(app.task(at_top))


class Adder:
    def __call__(self, n: int) -> int:
        return n + 1

    async def add(self, n: int) -> int:
        return n + 1

    @staticmethod
    def add_static(n: int) -> int:
        return n + 1

    @classmethod
    def add_class(cls, n: int) -> int:
        return n + 1


def plus(a: int, b: int) -> int:
    return a + b


@pytest.mark.parametrize(
    ("function", "runner"),
    [(partial(plus, 1), "thread"), (Adder(), "thread"), (Adder().add, "loop"), (partial(Adder().add), "loop")],
    ids=["partial", "object", "method", "partial of a coroutine"],
)
def test_partials_methods_and_callable_objects_make_tasks_under_a_name(
    function: Callable[..., Any], runner: str
) -> None:
    with pytest.raises(TaskInvalid, match="give name="):
        Penstock("memory://").task(function)
    task = a_task(function)
    assert task.runner == runner
    assert there_and_back(task, task.new_job((2,), {})) == ((2,), {})
    with pytest.raises(ArgumentsInvalid, match="expected int, got str"):
        task.enqueue("x")


def test_functions_of_a_class_that_need_no_object_make_tasks() -> None:
    app = Penstock("memory://")
    assert app.task(Adder.add_static).name == f"{__name__}.Adder.add_static"
    assert app.task(Adder.add_class)(1) == 2

    class Shop:
        @staticmethod
        @app.task(name="shop.send")
        def send(n: int) -> int:
            return n + 1

    assert Shop.send(1) == Shop().send(1) == 2


def counted(n: int) -> Iterator[int]:
    yield n


async def counted_async(n: int) -> AsyncIterator[int]:
    yield n


class Counted:
    def __call__(self, n: int) -> Iterator[int]:
        yield n


@pytest.mark.parametrize(
    ("unfit", "told"),
    [
        (7, "cannot be called"),
        ("name", "cannot be called"),
        (Adder, "is a class; wrap it in a function"),
        (vars(Adder)["add_static"], "write @staticmethod above @app.task"),
        (vars(Adder)["add_class"], "register a function outside the class"),
        (counted, "is a generator function, whose jobs would do nothing; loop inside it"),
        (counted_async, "is a generator function"),
        (partial(counted, 1), "is a generator function"),
        (Counted(), "is a generator function"),
        (Counted().__call__, "is a generator function"),
    ],
)
def test_what_would_do_nothing_as_a_task_is_refused_with_the_way_out(unfit: Any, told: str) -> None:
    app = Penstock("memory://")
    for decorate in (app.task, app.task(name="named")):
        with pytest.raises(TaskInvalid, match=told):
            decorate(unfit)
    assert app.tasks == {}


SCRIPT = """
from penstock import Penstock
app = Penstock("memory://")
@app.task
def send(): ...
print(send.name)
"""


def test_a_script_names_its_tasks_as_a_worker_would(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "jobs.py").write_text(SCRIPT)
    source = str(Path(__file__).parents[2] / "src")

    def run(*words: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *words]
        return subprocess.run(
            command, input=stdin, cwd=tmp_path, env={"PYTHONPATH": source}, capture_output=True, text=True, check=False
        )

    assert run("shop/jobs.py").stdout == "jobs.send\n"
    assert run("-m", "shop.jobs").stdout == "shop.jobs.send\n"
    assert "at a prompt" in run("-", stdin=SCRIPT).stderr


def test_defaults_are_those_of_the_default_policy() -> None:
    assert Penstock("memory://").task(at_top).policy is DEFAULT_POLICY


@pytest.mark.parametrize(
    ("backoff", "read"),
    [
        (None, Exponential()),
        ("exponential", Exponential()),
        (2, Fixed(2.0)),
        ("5m", Fixed(300.0)),
        (timedelta(seconds=1), Fixed(1.0)),
        ([1, "1m", timedelta(hours=1)], Table((1.0, 60.0, 3600.0))),
        (Exponential(2.0), Exponential(2.0)),
    ],
)
def test_backoff_is_read_as_people_write_it(backoff: Any, read: Any) -> None:
    assert a_task(at_top, backoff=backoff).policy.backoff == read


def test_exceptions_are_stored_by_their_qualified_names() -> None:
    policy = a_task(at_top, retry_on=[OSError, "ValueError"], give_up_on="shop.Broken").policy
    assert policy.retry_on == ("builtins.OSError", "builtins.ValueError")
    assert policy.give_up_on == ("shop.Broken",)


def test_time_options_are_read_as_durations() -> None:
    policy = a_task(at_top, timeout="90s", keep="7d").policy
    assert (policy.timeout_ms, policy.keep_ms) == (90_000, 7 * 86_400_000)
    assert a_task(at_top, timeout=None).policy.timeout_ms is None


@pytest.mark.parametrize(
    "option",
    [
        {"queue": "a b"},
        {"queue": ""},
        {"priority": 101},
        {"priority": 1.0},
        {"priority": True},
        {"max_attempts": 0},
        {"max_crashes": -1},
        {"timeout": 0},
        {"backoff": []},
        {"backoff": object()},
        {"retry_on": [7]},
        {"retry_on": 7},
        {"give_up_on": int},
        {"unique": ""},
        {"unique": 7},
        {"tags": "vip"},
        {"tags": [""]},
        {"max_memory": "lots"},
        {"name": ""},
        {"colour": "red"},
    ],
)
def test_options_that_cannot_be_used_are_refused_at_registration(option: dict[str, Any]) -> None:
    with pytest.raises(TaskInvalid) as caught:
        a_task(at_top, **option)
    assert next(iter(option)) in str(caught.value) or repr(next(iter(option.values()))) in str(caught.value)


@pytest.mark.parametrize("option", [{"timeout": "soon"}, {"keep": -1}, {"backoff": "sometimes"}])
def test_durations_that_are_none_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(DurationInvalid):
        a_task(at_top, **option)


@pytest.mark.parametrize("option", ["rate", "concurrency", "order_by"])
def test_options_of_later_versions_say_so(option: str) -> None:
    with pytest.raises(Unsupported, match=f"no {option}= yet"):
        a_task(at_top, **{option: "x"})


# -- terms ------------------------------------------------------------------------------------------------------------


def test_terms_reach_the_job() -> None:
    app = Penstock("memory://")
    task = app.task(queue="mail", priority=3, tags=["a"])(at_top)
    using = task.using(
        queue="slow", priority=-5, delay="5m", expires="1h", tags=["b", "a"], headers={"x": "y"}, idempotency_key="k"
    )
    job = app.engine.get([using.enqueue(1).id])[0]
    assert job is not None
    assert (job.queue, job.priority, job.details.tags, job.details.idempotency_key) == ("slow", -5, ("a", "b"), "k")
    assert job.due_ms == job.created_ms + 300_000
    assert job.expires_ms == job.created_ms + 3_600_000
    assert decode_envelope(job.envelope, job.crc).headers == {"x": "y"}


def test_terms_left_out_stay_as_the_task_has_them() -> None:
    task = Penstock("memory://").task(queue="mail", priority=3, tags=["a"])(at_top)
    info = task.using(headers={"x": "y"}).enqueue(1).info()
    assert (info.queue, info.priority, info.details.tags) == ("mail", 3, ("a",))


def test_terms_set_one_after_the_other_add_up() -> None:
    using = a_task(at_top).using(queue="slow", priority=3, tags=["a"]).using(priority=5, headers={"x": "y"})
    info = using.enqueue(1).info()
    assert (info.queue, info.priority, info.details.tags) == ("slow", 5, ("a",))
    with pytest.raises(TaskInvalid, match="not both"):
        using.using(delay=5).using(run_at=datetime(2090, 1, 1, tzinfo=UTC))


def test_run_at_is_a_moment_with_a_time_zone() -> None:
    task = a_task(at_top)
    moment = datetime(2090, 1, 1, tzinfo=UTC)
    assert task.using(run_at=moment).enqueue(1).info().due_ms == moment.timestamp() * 1000
    with pytest.raises(TaskInvalid, match="time zone"):
        task.using(run_at=datetime(2090, 1, 1))
    with pytest.raises(TaskInvalid, match="not both"):
        task.using(run_at=moment, delay=1)


@pytest.mark.parametrize(
    ("unique", "same", "other"),
    [
        (True, ((1, "a"), (1, "a")), (1, "b")),
        ("{n}", ((1, "a"), (1, "b")), (2, "a")),
        (lowered, ((1, "a"), (2, "A")), (1, "b")),
        (Unique("{text}", until="started"), ((1, "a"), (2, "a")), (1, "b")),
        (Unique("", until="started"), ((1, "a"), (1, "a")), (1, "b")),
        (True, ((1, "x" * 500), (1, "x" * 500)), (1, "x" * 501)),
    ],
)
def test_a_unique_key_gives_the_job_that_holds_it(unique: Any, same: Any, other: Any) -> None:
    def job(n: int, text: str) -> None: ...

    task = a_task(job, unique=unique)
    first, second, third = task.enqueue(*same[0]), task.enqueue(*same[1]), task.enqueue(*other)
    assert (first == second, second.existing, first.existing) == (True, True, False)
    assert third != first
    assert task.using(unique=unique).enqueue(*same[0]) == first


def test_a_unique_key_of_all_arguments_knows_how_they_were_passed() -> None:
    def job(n: int, text: str = "x") -> None: ...

    task = a_task(job, unique=True)
    assert task.enqueue(1) == task.enqueue(n=1) == task.enqueue(1, "x") == task.enqueue(text="x", n=1)


@pytest.mark.parametrize(
    "terms",
    [{"idempotency_key": "\ud800"}, {"tags": ["\ud800"]}, {"headers": {"x": "\ud800"}}, {"order_key": "\ud800"}],
)
def test_text_that_cannot_be_stored_is_refused(terms: dict[str, Any]) -> None:
    with pytest.raises(TaskInvalid, match="in valid Unicode"):
        a_task(at_top).using(**terms)


def test_a_unique_key_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(ArgumentsInvalid, match="in valid Unicode"):
        a_task(at_top, unique=lambda _number: "\ud800").enqueue(1)


def test_a_template_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ArgumentsInvalid, match="template"):
        a_task(at_top, unique="{order}").enqueue(1)


def test_many_are_checked_before_the_first_is_stored() -> None:
    app = Penstock("memory://")
    task = app.task(at_top)
    with pytest.raises(ArgumentsInvalid):
        task.enqueue_many([(1,), ("x",)])
    with pytest.raises(ArgumentsInvalid, match="a tuple for each job"):
        task.enqueue_many([1])  # type: ignore[list-item]
    assert app.find() == []
    handles = task.enqueue_many([(n,) for n in range(2500)])
    assert len({handle.id for handle in handles}) == len(app.find(limit=10_000)) == 2500


def test_a_bound_call_is_checked_now_and_stored_later() -> None:
    app = Penstock("memory://")
    task = app.task(at_top)
    with pytest.raises(ArgumentsInvalid):
        task.bind("x")  # type: ignore[arg-type]
    bound = task.using(queue="slow").bind(1)
    assert app.find() == []
    assert bound.enqueue().info().queue == "slow"


def test_a_command_takes_any_json() -> None:
    app = Penstock("memory://")
    task = app.command("resize", ["./resize.sh", "--fast"], timeout="5m", queue="images")
    assert (task.command, task.runner, task.queue) == (("./resize.sh", "--fast"), "command", "images")
    job = task.enqueue("cat.png", width=100)
    assert there_and_back(task, task.new_job(("cat.png",), {"width": 100})) == (("cat.png",), {"width": 100})
    assert job.task == "resize"
    for command in ("./resize.sh", [], [7]):
        with pytest.raises(TaskInvalid, match="give a list of texts"):
            app.command("other", command)
    with pytest.raises(TaskInvalid, match="resize"):
        app.command("resize", ["./other.sh"])
