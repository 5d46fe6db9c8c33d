"""What users' type checkers see. Each ignored error must occur: mypy reports an ignore that is not needed."""

from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from penstock import Exponential, Job, JobHandle, Penstock, State, Task, Unique
from penstock.options import JobTerms
from penstock.task import Bound, Using
from penstock.testing import TurnedClock, memory_engine, run_jobs

app = Penstock("memory://")


@app.task
def receipt(order_id: int, *, copies: int = 1) -> str:
    return f"{order_id} {copies}"


@app.task(queue="mail", max_attempts=2)
async def mail(address: str) -> bytes:
    return address.encode()


@app.task(queu="mail")  # type: ignore[call-overload, untyped-decorator]
def misspelt() -> None: ...


@app.task(max_attempts="two")  # type: ignore[call-overload, untyped-decorator]
def miscounted() -> None: ...


@app.task(runner="threads")  # type: ignore[call-overload, untyped-decorator]
def misplaced() -> None: ...


@app.task(
    name="shop.report",
    queue="reports",
    priority=-5,
    runner="process",
    max_attempts=3,
    max_crashes=1,
    timeout=None,
    backoff=[1, "5s", timedelta(minutes=1)],
    retry_on=[OSError, "shop.OutOfPaper"],
    give_up_on=ValueError,
    keep="7d",
    unique="{year}",
    tags=["night"],
    max_memory="512M",
)
def report(year: int) -> list[str]:
    return [str(year)]


@app.task(unique=Unique("{year}", clash="keep"), backoff=Exponential(2.0), timeout=30)
async def areport(year: int, *, draft: bool = False) -> dict[str, int]:
    return {"year": year, "draft": draft}


async def coroutines_give_handles_of_what_they_return() -> None:
    call: Coroutine[Any, Any, bytes] = mail("ada")
    assert_type(await call, bytes)
    assert_type(mail.enqueue("ada"), JobHandle[bytes])
    assert_type(await mail.aenqueue("ada"), JobHandle[bytes])
    assert_type(await receipt.aenqueue(7), JobHandle[str])
    assert_type(await receipt.enqueue(7), str)
    assert_type(await mail.enqueue("ada").aresult(timeout="5s"), bytes)
    await mail.aenqueue(7)  # type: ignore[arg-type]


def functions_give_handles_of_what_they_return() -> None:
    assert_type(receipt(7), str)
    assert_type(receipt.enqueue(7), JobHandle[str])
    assert_type(receipt.enqueue(7, copies=2).result(), str)
    assert_type(receipt.enqueue_many([(7,), (8,)]), list[JobHandle[str]])
    assert_type(receipt.bind(7), Bound[str])
    assert_type(receipt.bind(7).enqueue(), JobHandle[str])


def arguments_are_checked() -> None:
    receipt.enqueue("seven")  # type: ignore[arg-type]
    receipt.enqueue()  # type: ignore[call-arg]
    receipt.enqueue(7, 8)  # type: ignore[call-arg]
    receipt.enqueue(7, copis=2)  # type: ignore[call-arg]
    receipt.bind("seven")  # type: ignore[arg-type]
    receipt("seven")  # type: ignore[arg-type]


def using_keeps_the_signature() -> None:
    slow = receipt.using(queue="slow", delay="5m", unique="{order_id}")
    slow.enqueue(7)
    slow.enqueue("seven")  # type: ignore[arg-type]
    slow.bind(7, copies="two")  # type: ignore[arg-type]
    assert_type(slow.enqueue(7), JobHandle[str])
    assert_type(mail.using(priority=5).enqueue("ada"), JobHandle[bytes])
    receipt.using(priorty=5)  # type: ignore[call-arg]


def every_term_is_known() -> None:
    receipt.using(
        queue="slow",
        priority=5,
        run_at=datetime.now(UTC),
        expires=timedelta(hours=1),
        unique=True,
        idempotency_key="k",
        order_key="o",
        tags=["a"],
        connection=object(),
        headers={"x": "y"},
    ).using(delay=5, expires=datetime.now(UTC)).enqueue(7)
    receipt.using(priority="high")  # type: ignore[arg-type]
    receipt.using(headers=["x"])  # type: ignore[arg-type]
    mail.using(delay=5, prio=5)  # type: ignore[call-arg]
    app.using(prio=5)  # type: ignore[call-arg]
    app.using(queue=5)  # type: ignore[arg-type]
    terms: JobTerms = {"delay": "5m"}
    assert_type(receipt.using(**terms).enqueue(7), JobHandle[str])


async def tasks_with_options_keep_their_signature() -> None:
    assert_type(report(2030), list[str])
    assert_type(report.enqueue(2030).result(timeout="1m"), list[str])
    assert_type(await report.aenqueue(2030), JobHandle[list[str]])
    assert_type(await areport(2030), dict[str, int])
    assert_type(areport.enqueue(2030, draft=True), JobHandle[dict[str, int]])
    assert_type(await areport.bind(2030).aenqueue(), JobHandle[dict[str, int]])
    assert_type(await (await areport.using(priority=5).aenqueue(2030)).aresult(), dict[str, int])
    assert_type(await areport.enqueue(2030).ended(), State)
    assert_type(areport.enqueue(2030).wait(), State)
    assert_type(areport.enqueue_many([(2030,)]), list[JobHandle[dict[str, int]]])
    report.enqueue("2030")  # type: ignore[arg-type]
    report.using(delay=5).enqueue(2030, draft=True)  # type: ignore[call-arg]
    areport.enqueue(2030, draft="yes")  # type: ignore[arg-type]
    await areport.using(delay=5).aenqueue()  # type: ignore[call-arg]
    areport.bind(draft=True)  # type: ignore[call-arg]


def a_handle_of_a_class_serves_for_its_base(one: JobHandle[bool]) -> JobHandle[int]:
    return one


def a_coroutine_task_is_a_task() -> Task[[str], bytes]:
    return mail


def commands_and_names_take_anything() -> None:
    resize = app.command("resize", ["./resize.sh"], timeout="5m")
    assert_type(resize.enqueue("cat.png", width=100).result(), Any)
    assert_type(app.enqueue("other.task", 1, x=2), JobHandle[Any])
    app.using(queue="slow").enqueue("other.task")
    app.enqueue(receipt, 7)
    app.command("resize", ["./resize.sh"], runner="thread")  # type: ignore[call-arg]
    app.command("resize", ["./resize.sh"], prio=5)  # type: ignore[call-arg]


def jobs_are_named_by_id_handle_or_themselves(job: Job) -> None:
    app.cancel([receipt.enqueue(7), job, job.id])
    app.kick("01890a5d-ac96-774b-bcce-b302099a8057")
    app.cancel(7)  # type: ignore[arg-type]
    assert_type(app.job(job), JobHandle[Any])


def a_test_runs_jobs_over_a_store_in_memory(clock: TurnedClock) -> None:
    assert_type(run_jobs(Penstock(engine=memory_engine(clock))), int)


def terms_are_typed_as_users_write_them(using: Using[[int], str]) -> None:
    using.enqueue(7)
