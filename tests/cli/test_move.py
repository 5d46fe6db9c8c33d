"""`penstock move` on real files: what it says, what it writes for programs, and how it ends."""

import signal
from pathlib import Path

from penstock.client import Penstock
from tests.cli.desk import Desk, command


def other(desk: Desk) -> str:
    return f"sqlite:///{desk.file.with_name('other.db')}"


def test_jobs_and_switches_are_moved_and_counted(desk: Desk) -> None:
    ids = [desk.bury(), desk.enqueue("shop.send", 7, delay=60)]
    ids += [desk.enqueue("shop.send", number, queue="mail") for number in range(3)]
    desk.done("queues", "limit", "mail", "10")
    told = desk.run("move", desk.url, other(desk))
    assert told.exit_code == 0
    assert f"5 of 5 jobs moved to {other(desk)}." in told.stdout
    assert "stay paused" in told.stderr
    assert "--resume" in told.stderr
    with Penstock(other(desk)) as app:
        assert [str(app.job(id).state()) for id in ids] == ["buried", "scheduled", "ready", "ready", "ready"]
        assert [(queue.name, queue.max_jobs) for queue in app.engine.queues()] == [("default", None), ("mail", 10)]


def test_json_has_the_counts_of_every_queue(desk: Desk) -> None:
    desk.enqueue("shop.send", 1, queue="mail")
    desk.enqueue("shop.send", 1)
    desk.hand().claim()
    running = desk.enqueue("shop.send", 2)
    document = desk.read("move", desk.url, other(desk))
    assert {name: document[name] for name in ("found", "moved", "already_there", "left", "running")} == {
        "found": 1,
        "moved": 1,
        "already_there": 0,
        "left": 0,
        "running": 2,
    }
    assert document["held"] == ["default", "mail"]
    assert desk.run("jobs", "show", running, "--url", other(desk)).exit_code == 0


def test_second_move_says_that_there_is_nothing(desk: Desk) -> None:
    desk.enqueue()
    desk.done("move", desk.url, other(desk))
    assert "Nothing to move" in desk.done("move", desk.url, other(desk))


def test_dry_run_counts_and_changes_nothing(desk: Desk) -> None:
    desk.enqueue()
    told = desk.run("move", desk.url, other(desk), "--dry-run")
    assert (told.exit_code, "1 job of" in told.stdout, "would be moved" in told.stdout) == (0, True, True)
    assert desk.read("queues", "list")["queues"][0]["paused"] is False
    assert not Path(other(desk).removeprefix("sqlite:///")).exists()


def test_history_is_moved_with_results(desk: Desk) -> None:
    id = desk.enqueue("shop.send", 1)
    hand = desk.hand()
    hand.succeed(hand.claim()[0], b'"sent"')
    assert "Nothing to move" in desk.done("move", desk.url, other(desk))
    desk.done("move", desk.url, other(desk), "--history")
    with Penstock(other(desk)) as app:
        assert app.job(id).result(timeout=0) == "sent"


def test_resume_lets_the_queues_go_on(desk: Desk) -> None:
    desk.enqueue("shop.send", 1, queue="mail")
    desk.done("move", desk.url, other(desk))
    assert "set as they were before" in desk.done("move", desk.url, other(desk), "--resume")
    desk.enqueue("shop.send", 1, queue="mail")
    assert [queue["name"] for queue in desk.read("queues", "list")["queues"]] == ["mail"]
    assert len(desk.hand().claim()) == 1


def test_job_that_cannot_be_moved_is_named_and_the_status_tells(desk: Desk) -> None:
    held = desk.enqueue("shop.send", 1, unique="k")
    with Penstock(other(desk)) as app:
        app.using(unique="k").enqueue("shop.send", 2)
    told = desk.run("move", desk.url, other(desk))
    assert told.exit_code == 1
    assert f"{held} in queue default was left: " in told.stderr


def test_wrong_stores_are_refused_before_anything_changes(desk: Desk) -> None:
    desk.enqueue()
    missing = f"sqlite:///{desk.file.with_name('missing.db')}"
    cases = {
        (desk.url, desk.url): (1, "are one store"),
        (missing, desk.url): (3, "There is no store at"),
        (desk.url, "memory://"): (2, "private to each process"),
        (desk.url, "sqlite://missing.db"): (2, "two slashes"),
        (desk.url, other(desk), "--resume", "--wait"): (2, "--resume moves nothing"),
    }
    for words, (status, message) in cases.items():
        told = desk.run("move", *words)
        assert (told.exit_code, message in told.stderr) == (status, True), told.stderr
    assert desk.read("queues", "list")["queues"][0]["paused"] is False


def test_move_that_is_interrupted_while_it_waits_says_how_it_is_finished(desk: Desk) -> None:
    running = desk.enqueue("shop.send", 1)
    desk.hand().claim()
    with command("move", desk.url, other(desk), "--wait") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "Waiting for 1 running job of the old store …\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "The same command finishes it" in told
    assert desk.state(running) == "running"
