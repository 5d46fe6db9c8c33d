"""A small application that the command line is tried on; its store is named on the command line."""

import time

from penstock.client import Penstock
from penstock.context import current_job

app = Penstock()


@app.task(queue="mail", name="shop.send")
def send(order_id: int, to: str = "ada") -> str:
    return f"sent {order_id} to {to}"


@app.task(name="shop.refuse", max_attempts=1)
def refuse(order_id: int) -> None:
    raise LookupError(f"no order {order_id}")


@app.task(name="shop.linger")
def linger(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        current_job().check_cancelled()
        time.sleep(0.01)
