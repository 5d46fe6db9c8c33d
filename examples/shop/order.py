"""Take one order and wait for all that follows from it."""

from pathlib import Path

from tasks import app, ask_suppliers, charge_card, make_thumbnail, send_receipt

from penstock import JobFailed

WAIT_S = 30


def main() -> None:
    picture = Path("cat.ppm")
    picture.write_bytes(b"P6 64 48 255\n" + bytes(range(256)) * 36)
    charged = charge_card.enqueue(7, 1999)
    free_of_charge = charge_card.enqueue(8, 0)
    thumbnail = make_thumbnail.enqueue(str(picture))
    stock = ask_suppliers.enqueue("cat", ["north", "southern"])
    print(charged.result(WAIT_S))
    receipt = send_receipt.using(idempotency_key="receipt-7").enqueue(7, "ada@example.org")
    print("receipt in", receipt.result(WAIT_S))
    print("thumbnail", thumbnail.result(WAIT_S))
    print("in stock", stock.result(WAIT_S))
    try:
        free_of_charge.result(WAIT_S)
    except JobFailed as error:
        print("order 8:", error)
    app.close()


if __name__ == "__main__":
    main()
