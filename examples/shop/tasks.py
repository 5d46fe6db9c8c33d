"""A tiny shop: what it does after an order has been taken."""

import asyncio
import sys
from email.message import EmailMessage
from pathlib import Path

from penstock import Bury, Penstock, current_job

HERE = Path(__file__).parent

app = Penstock("sqlite:///shop.db")


@app.task(queue="mail", timeout=30)
def send_receipt(order: int, address: str) -> str:
    """Send a receipt. It goes to a folder instead of a mail server; sending it twice overwrites the same file."""
    message = EmailMessage()
    message["To"] = address
    message["Subject"] = f"Your order {order}"
    message.set_content("Thank you. Your order is on its way.")
    outbox = Path("outbox")
    outbox.mkdir(exist_ok=True)
    letter = outbox / f"receipt-{order}.eml"
    letter.write_bytes(bytes(message))
    return str(letter)


# A program of any language: it reads {"args": …, "kwargs": …} from its standard input and writes JSON to its output.
make_thumbnail = app.command(
    "shop.make_thumbnail", [sys.executable, str(HERE / "thumbnail.py")], queue="images", timeout="1m"
)


@app.task
async def ask_suppliers(product: str, suppliers: list[str]) -> dict[str, int]:
    """Ask all suppliers at once how many they have; while it waits, other coroutines run."""
    answers = await asyncio.gather(*(ask(supplier, product) for supplier in suppliers))
    return dict(zip(suppliers, answers, strict=True))


async def ask(supplier: str, product: str) -> int:
    """Stand for a call over the network."""
    await asyncio.sleep(0.1)
    return len(supplier) * len(product)


class CardServiceBusy(Exception):
    """The card service asks to come back later."""


@app.task(max_attempts=5, backoff="200ms", retry_on=CardServiceBusy)
def charge_card(order: int, cents: int) -> str:
    """Charge a card. The service, which this only stands for, is busy twice; what can never succeed is buried."""
    if cents <= 0:
        raise Bury(f"order {order} costs {cents} cents; somebody should look at it")
    if current_job().attempt < 3:
        raise CardServiceBusy("come back later")
    return f"charged {cents / 100:.2f} for order {order}"
