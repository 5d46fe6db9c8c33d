"""Jobs listed, shown and steered."""

import pytest

from penstock.model.job import ErrorInfo, Evidence
from penstock.model.outcome import Ending, Outcome
from tests.cli.desk import APP, Desk


def test_list_shows_the_newest_first_with_whole_ids(desk: Desk) -> None:
    first, second = desk.enqueue("shop.send", 1), desk.enqueue("shop.send", 2)
    written = desk.done("jobs", "list")
    assert written.index(second) < written.index(first)


@pytest.mark.parametrize("columns", ["40", "80", "100", "200"])
def test_ids_are_whole_on_every_width(desk: Desk, columns: str) -> None:
    id = desk.bury("a long story " * 20)
    written = desk.done("jobs", "list", COLUMNS=columns)
    assert id in written
    assert "buried" in written


def test_list_takes_a_filter(desk: Desk) -> None:
    buried = desk.bury()
    mail = desk.enqueue("shop.send", 1, queue="mail", tags=["red"])
    desk.enqueue("shop.send", 2, queue="other")

    def ids(*words: str) -> list[str]:
        return [job["id"] for job in desk.read("jobs", "list", *words)["jobs"]]

    assert ids("--queue", "mail") == ids("--tag", "red") == [mail]
    assert ids("--state", "buried") == ids("--task", "shop.refuse") == ids("--text", "NO ORDER") == [buried]
    assert len(ids("--state", "buried", "--state", "ready")) == 3


def test_list_goes_on_where_the_page_before_ended(desk: Desk) -> None:
    wanted = [desk.enqueue("shop.send", number) for number in range(5)][::-1]
    page = desk.read("jobs", "list", "--limit", "3")
    rest = desk.read("jobs", "list", "--before", page["next"])
    assert [job["id"] for job in page["jobs"] + rest["jobs"]] == wanted
    assert rest["next"] is None
    assert f"--before {page['next']}" in desk.run("jobs", "list", "--limit", "3").stderr


@pytest.mark.parametrize(
    "words", [("jobs", "list", "--task"), ("jobs", "list", "--text"), ("jobs", "show"), ("workers", "drain")]
)
def test_words_that_are_not_utf8_are_refused(desk: Desk, words: tuple[str, ...]) -> None:
    desk.enqueue()
    result = desk.run(*words, "a\udcff")
    assert result.exit_code == 2
    assert r"'a\udcff'" in result.stderr


def test_no_match_is_said_on_stderr(desk: Desk) -> None:
    desk.enqueue()
    result = desk.run("jobs", "list", "--state", "buried")
    assert (result.stdout, result.stderr, result.exit_code) == ("", "No job matches.\n", 0)


def test_a_store_that_is_not_there_is_said_and_not_made(desk: Desk) -> None:
    result = desk.run("jobs", "list")
    assert result.exit_code == 3
    assert f"There is no store at {desk.url}" in result.stderr
    assert not desk.file.exists()


def test_show_tells_everything_and_what_can_be_done(desk: Desk) -> None:
    id = desk.bury()
    written = desk.done("jobs", "show", id)
    for part in (id, "shop.refuse", "buried", "[7]", "event 1 of 1: failed", "Traceback", f"penstock jobs kick {id}"):
        assert part in written
    assert "jobs cancel" not in written


def test_show_tells_what_was_found_of_a_job_that_took_its_process_down(desk: Desk) -> None:
    id, hand = desk.enqueue("shop.refuse", 7), desk.hand()
    evidence = Evidence(-11, "a fault in C", 2_097_152, 1_500_000, "Thread 1\n  in work", "last\x1b words\n")
    error = ErrorInfo(kind="crashed", message="its process was killed", evidence=evidence)
    hand.end(hand.claim()[0], Outcome(ending=Ending.CRASHED, error=error))
    written = desk.done("jobs", "show", id)
    assert "event 1 of 1, likely cause (signal 11, after 1.5s, peak memory 2.0 MiB)\na fault in C\n" in written
    assert "event 1 of 1, where its threads stood\nThread 1\n  in work\n" in written
    assert "event 1 of 1, last lines of its log\nlast" in written
    assert "\x1b" not in written
    (told,) = desk.read("jobs", "show", id)["history"]
    assert (told["evidence"]["status"], told["evidence"]["ran_s"]) == (-11, 1.5)
    assert told["evidence"]["stacks"] == evidence.stacks


def test_show_offers_to_cancel_a_running_job_and_not_to_bury_it(desk: Desk) -> None:
    id = desk.enqueue()
    desk.hand().claim()
    written = desk.done("jobs", "show", id)
    assert f"jobs cancel {id}" in written
    assert "jobs bury" not in written
    assert "1 started" in written


def test_a_running_job_names_its_worker_as_the_list_of_workers_does(desk: Desk) -> None:
    id = desk.enqueue()
    desk.hand().claim()
    process = desk.read("jobs", "show", id)["process"]
    (worker,) = desk.read("workers", "list")["workers"]
    assert worker["processes"] == [process]
    assert f"{process[:8]} of worker {worker['id'][:8]}, pid {worker['pid']} on" in desk.done("jobs", "show", id)
    assert f"\n{worker['id'][:8]}" in desk.done("workers", "list")


def test_show_as_json_has_error_and_result(desk: Desk) -> None:
    buried = desk.read("jobs", "show", desk.bury())
    assert buried["history"][0]["message"] == "no order 7"
    id, hand = desk.enqueue("shop.send", 7), desk.hand()
    hand.succeed(hand.claim()[0], b'{"ok":true}')
    job = desk.read("jobs", "show", id)
    assert (job["state"], job["result"], job["log"]) == ("succeeded", {"ok": True}, {})


def test_what_a_job_wrote_cannot_steer_the_terminal(desk: Desk) -> None:
    id = desk.bury("\x1b[2Jgone\a")
    for words in (["list"], ["show", id]):
        written = desk.done("jobs", *words)
        assert "\\x1b[2Jgone" in written or "Traceback" in written
        assert "\x1b" not in written


def test_an_unknown_job_is_named(desk: Desk) -> None:
    desk.enqueue()
    result = desk.run("jobs", "show", "nonsense")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "'nonsense'" in result.stderr


def test_kick_makes_a_buried_job_ready(desk: Desk) -> None:
    id = desk.bury()
    assert desk.done("jobs", "kick", id) == "1 kicked.\n"
    assert desk.state(id) == "ready"


def test_ids_come_from_stdin_and_count_once(desk: Desk) -> None:
    ids = [desk.enqueue("shop.send", number) for number in range(3)]
    assert desk.done("jobs", "cancel", "-", ids[0], input="\n".join(ids)) == "3 cancelled.\n"


def test_what_is_left_alone_says_why_and_fails(desk: Desk) -> None:
    ready = desk.enqueue()
    result = desk.run("jobs", "kick", ready, "nonsense")
    assert result.exit_code == 1
    assert f"{ready} was left alone: job is ready" in result.stderr
    assert "nonsense was left alone: no such job" in result.stderr


def test_a_running_job_is_asked_to_stop(desk: Desk) -> None:
    id = desk.enqueue()
    desk.hand().claim()
    assert desk.done("jobs", "cancel", id) == "1 running, asked to stop.\n"
    assert desk.read("jobs", "show", id)["cancel_requested"]


def test_all_matching_asks_with_the_count(desk: Desk) -> None:
    for number in range(3):
        desk.enqueue("shop.send", number, queue="mail")
    desk.enqueue("shop.send", 4, delay=60, queue="mail")
    other = desk.enqueue("shop.send", 5)
    asked = desk.run("jobs", "cancel", "--queue", "mail", "--all-matching", input="n\n")
    assert asked.exit_code == 1
    assert "Cancel 4 jobs (3 ready, 1 scheduled)?" in asked.stderr
    assert desk.store.counts()["mail"]["cancelled"] == 0
    assert desk.done("jobs", "cancel", "--queue", "mail", "--all-matching", input="y\n") == "4 cancelled.\n"
    assert desk.state(other) == "ready"


def test_nobody_to_ask_needs_yes(desk: Desk) -> None:
    desk.enqueue()
    result = desk.run("jobs", "delete", "--all-matching", input="")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "penstock: Nobody answers here; give --yes to go on without asking."
    assert desk.done("jobs", "delete", "--all-matching", "--yes") == "1 deleted.\n"


def test_many_are_changed_in_several_steps(desk: Desk) -> None:
    desk.enqueue()
    many = desk.store.command("shop.many", ["true"], tags=["many"])
    many.enqueue_many([(number,) for number in range(2500)])
    assert desk.done("jobs", "bury", "--tag", "many", "--all-matching", "--yes") == "2,500 buried.\n"
    assert desk.read("jobs", "kick", "--all-matching", "--yes") == {
        "kicked": 2500,
        "asked_to_stop": 0,
        "left_alone": [],
    }


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["kick"], "Give ids, or --all-matching"),
        (["kick", "1", "--all-matching"], "Give ids, or --all-matching"),
        (["kick", "1", "--queue", "mail"], "not both"),
        (["reschedule", "1"], "Give --delay or --run-at"),
        (["edit", "1"], "Say what to change"),
        (["edit", "1", "--args", "{}"], "a JSON array"),
        (["edit", "1", "--kwargs", "[]"], "a JSON object"),
        (["list", "--state", "done"], "'done' is no state. Known: blocked, "),
        (["list", "-s", "runing"], "'runing' is no state. Did you mean 'running'? Known: "),
        (["list", "--before", "zzz"], "'zzz' is no id of a job"),
        (["reschedule", "1", "--delay", "-5s"], "it is negative"),
        (["lsit"], "Did you mean 'list'"),
    ],
)
def test_wrong_usage_says_what_would_be_right(desk: Desk, words: list[str], complaint: str) -> None:
    result = desk.run("jobs", *words)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_reschedule_lets_a_ready_job_wait(desk: Desk) -> None:
    id = desk.enqueue()
    assert desk.done("jobs", "reschedule", id, "--delay", "1h") == "1 rescheduled.\n"
    assert desk.state(id) == "scheduled"


def test_edit_changes_what_is_given_and_leaves_the_rest(desk: Desk) -> None:
    id = desk.bury()
    written = desk.done("jobs", "edit", id, "--args", "[8]", "--queue", "mail", "--priority", "5")
    assert written == f"{id} was edited and is ready.\n"
    job = desk.read("jobs", "show", id)
    assert (job["args"], job["kwargs"], job["queue"], job["priority"]) == ([8], {}, "mail", 5)


def test_edit_checks_arguments_against_the_application(desk: Desk) -> None:
    id = desk.enqueue("shop.send", 7)
    result = desk.run("jobs", "edit", id, "--args", '["x"]', "-A", APP, "--url", desk.url)
    assert result.exit_code == 2
    assert "order_id is 'x'" in result.stderr
    assert desk.read("jobs", "show", id)["args"] == [7]


def test_edit_of_a_running_job_is_refused(desk: Desk) -> None:
    id = desk.enqueue()
    desk.hand().claim()
    result = desk.run("jobs", "edit", id, "--priority", "5")
    assert result.exit_code == 1
    assert "running" in result.stderr
