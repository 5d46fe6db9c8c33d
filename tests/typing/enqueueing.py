"""What users' type checkers see. Each ignored error must occur: mypy reports an ignore that is not needed."""

from collections.abc import Coroutine
from typing import Any, assert_type

from penstock import JobHandle, Penstock, Task
from penstock.task import Bound, Using

app = Penstock("memory://")


@app.task
def receipt(order_id: int, *, copies: int = 1) -> str:
    return f"{order_id} {copies}"


@app.task(queue="mail", max_attempts=2)
async def mail(address: str) -> bytes:
    return address.encode()


@app.task(queu="mail")  # type: ignore[call-overload, untyped-decorator]
def misspelt() -> None: ...


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


def a_handle_of_a_class_serves_for_its_base(one: JobHandle[bool]) -> JobHandle[int]:
    return one


def a_coroutine_task_is_a_task() -> Task[[str], bytes]:
    return mail


def commands_and_names_take_anything() -> None:
    resize = app.command("resize", ["./resize.sh"], timeout="5m")
    assert_type(resize.enqueue("cat.png", width=100).result(), Any)
    assert_type(app.enqueue("other.task", 1, x=2), JobHandle[Any])
    app.using(queue="slow").enqueue("other.task")


def terms_are_typed_as_users_write_them(using: Using[[int], str]) -> None:
    using.enqueue(7)
