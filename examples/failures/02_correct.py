"""A job that cannot succeed is buried; a person corrects its arguments, and it runs again.

Watch it fail once only, because a second attempt could not help, and succeed under the same id.
"""

import json

from stage import Worker, follow, say, stage

from penstock import Penstock

app = Penstock()


@app.task(max_attempts=5, backoff="200ms", give_up_on=ValueError)
def send_receipt(order_id: int, address: str) -> str:
    if "@" not in address:
        raise ValueError(f"{address!r} is no address")
    return f"receipt {order_id} sent to {address}"


def main() -> None:
    with stage(app), Worker():
        job = send_receipt.enqueue(7, "ada.example.org")
        follow(job)
        say(f"a person looks: {job.info().error}")
        app.edit(job.id, args=[7, "ada@example.org"], by="bob")
        edit = job.info().details.edits[0]
        say(f"{edit.by} has corrected it, and it is {job.state()}; kept: {json.loads(edit.envelope)['args']}")
        follow(job)
        say(f"result: {job.result()}")


if __name__ == "__main__":
    main()
