"""A mail server is down: its jobs wait behind an open circuit breaker, free of charge, until it answers again.

Watch three failures open the breaker, other tasks go on, and all mails go out once the server is back.
"""

from stage import Worker, folder, say, stage, until, wait_for

from penstock import Penstock

app = Penstock()


class MailServerDown(ConnectionError):
    pass


app.classify(MailServerDown, "dependency:smtp")
app.dependency("smtp", after=3, pause="500ms")


@app.task(depends_on="smtp", max_attempts=3, backoff="100ms")
def send(order_id: int) -> str:
    if (folder() / "server is down").exists():
        raise MailServerDown("smtp.example.org does not answer")
    return f"mail {order_id} is out"


@app.task
def count_words(text: str) -> int:
    return len(text.split())


def main() -> None:
    with stage(app) as place, Worker("--slots", "1"):
        (place / "server is down").touch()
        mails = send.enqueue_many([(order,) for order in range(20)])
        breaker = until(lambda: app.breakers().get("smtp"), "the breaker opens")
        say(f"{breaker.reason}; {', '.join(breaker.tasks)} waits")
        say(f"another task goes on: {count_words.enqueue('four words of text').result(60)} words")
        tries = until(lambda: app.breakers()["smtp"].probes, "a job tries")
        say(f"{tries} mail tried since, and failed")
        (place / "server is down").unlink()
        say("the server is back")
        wait_for(mails)
        out = sum(mail.state() == "succeeded" for mail in mails)
        failures = sum(mail.info().counters.failures for mail in mails)
        say(f"{out} of {len(mails)} mails are out; failures charged: {failures}; open breakers: {len(app.breakers())}")


if __name__ == "__main__":
    main()
