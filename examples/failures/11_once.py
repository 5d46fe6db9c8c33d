"""A process dies after it has paid, before it could say so: nobody knows whether it has, so it does not pay again.

Watch one job ask the bank, and one job wait for a person, who looks; each pays once.
"""

import os
from pathlib import Path

from stage import Worker, folder, follow, say, stage

from penstock import Penstock, current_job

app = Penstock()


def book() -> Path:
    """The book of the bank, which knows nothing of jobs."""
    return folder() / "book"


def pay(account: str) -> str:
    with book().open("a") as lines:
        lines.write(f"{account}\n")
    os._exit(1)  # stands for a crash in the worst moment


def has_paid(account: str) -> bool:
    return account in book().read_text().split()


@app.task
def pay_and_ask(account: str) -> str:
    current_job().once(f"pay {account}", pay, account, unknown=lambda: has_paid(account))
    return f"{account} is paid"


@app.task
def pay_or_bury(account: str) -> str:
    current_job().once(f"pay {account}", pay, account, unknown="bury")
    return f"{account} is paid"


def main() -> None:
    with stage(app), Worker():
        asks = pay_and_ask.enqueue("NL12")
        follow(asks)
        say(f"result: {asks.result()}; the bank was asked")
        waits = pay_or_bury.enqueue("BE34")
        follow(waits)
        say(f"a person looks into the book: {has_paid('BE34')}")
        app.settle_once("pay BE34", done=True)
        app.kick(waits.id)
        follow(waits)
        say(f"result: {waits.result()}; payments in the book: {book().read_text().split()}")


if __name__ == "__main__":
    main()
