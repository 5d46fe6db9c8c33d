"""Queues and workers, listed and switched."""

from tests.cli.desk import Desk


def test_list_shows_switch_limit_and_counts(desk: Desk) -> None:
    desk.enqueue("shop.send", 1, queue="mail")
    desk.done("queues", "pause", "mail")
    desk.done("queues", "limit", "mail", "10")
    written = desk.done("queues", "list")
    assert "paused" in written
    (queue,) = desk.read("queues", "list")["queues"]
    assert (queue["name"], queue["paused"], queue["max_jobs"], queue["states"]) == ("mail", True, 10, {"ready": 1})


def test_pause_holds_jobs_back_until_resume(desk: Desk) -> None:
    desk.enqueue("shop.send", 1, queue="mail")
    assert "penstock queues resume mail" in desk.done("queues", "pause", "mail")
    hand = desk.hand()
    assert hand.claim() == ()
    desk.done("queues", "resume", "mail")
    assert len(hand.claim()) == 1


def test_a_queue_without_jobs_may_be_a_slip(desk: Desk) -> None:
    desk.enqueue("shop.send", 1, queue="mail")
    for words in (("pause", "mial"), ("resume", "maill"), ("limit", "lmail", "7")):
        told = desk.run("queues", *words)
        assert (told.exit_code, f"queue {words[1]} has had no job" in told.stderr) == (0, True)
        assert "Did you mean mail? Known: mail" in told.stderr
    assert desk.run("queues", "pause", "mail").stderr == ""


def test_limit_refuses_what_is_beyond_and_can_be_lifted(desk: Desk) -> None:
    desk.done("queues", "limit", "mail", "1")
    assert desk.run("enqueue", "a.task", "--queue", "mail").exit_code == 0
    full = desk.run("enqueue", "a.task", "--queue", "mail")
    assert full.exit_code == 1
    assert "Queue 'mail' is full" in full.stderr
    assert "any number" in desk.done("queues", "limit", "mail", "none")
    assert desk.run("enqueue", "a.task", "--queue", "mail").exit_code == 0


def test_a_limit_of_nothing_says_that_it_refuses_every_job(desk: Desk) -> None:
    assert "takes no new jobs: enqueueing is refused" in desk.done("queues", "limit", "mail", "0")
    refused = desk.run("enqueue", "a.task", "--queue", "mail").stderr
    assert "takes no jobs, as its limit is 0; raise the limit with `penstock queues limit mail N`" in refused
    assert "workers" not in refused


def test_limit_that_is_no_number_is_refused(desk: Desk) -> None:
    result = desk.run("queues", "limit", "mail", "ten")
    assert result.exit_code == 2
    assert "'ten'" in result.stderr


def test_purge_deletes_what_waits_and_nothing_else(desk: Desk) -> None:
    running = desk.enqueue("shop.send", 1, queue="mail")
    desk.hand().claim()
    desk.enqueue("shop.send", 2, queue="mail")
    desk.enqueue("shop.send", 3, queue="mail", delay=60)
    other = desk.enqueue("shop.send", 4)
    asked = desk.run("queues", "purge", "mail", input="n\n")
    assert "Delete 2 jobs (1 ready, 1 scheduled)?" in asked.stderr
    assert desk.done("queues", "purge", "mail", "--yes") == "2 deleted.\n"
    assert (desk.state(running), desk.state(other)) == ("running", "ready")


def test_workers_are_listed_and_drained(desk: Desk) -> None:
    desk.hand()
    (worker,) = desk.read("workers", "list")["workers"]
    assert worker["tasks"] == ["shop.send", "shop.refuse", "shop.linger"]
    assert worker["id"] in desk.done("workers", "list")
    result = desk.run("workers", "drain", worker["id"], "nobody")
    assert result.exit_code == 1
    assert "'nobody'" in result.stderr
    assert desk.read("workers", "list")["workers"][0]["draining"]


def test_no_worker_is_said(desk: Desk) -> None:
    desk.enqueue()
    result = desk.run("workers", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "penstock worker -A" in result.stderr
