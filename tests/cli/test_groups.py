"""Groups of buried jobs on the command line: shown, chosen, tried and retried; and edits that can be looked up."""

import pytest

from tests.cli.desk import Desk, working


def test_groups_show_what_failed_alike_and_how_to_retry_it(desk: Desk) -> None:
    desk.bury("no order 7")
    sample = desk.bury("no order 8")
    [group] = desk.read("jobs", "groups")["groups"]
    assert (group["task"], group["queue"], group["count"]) == ("shop.refuse", "default", 2)
    assert (group["exception"], group["sample"]) == ("builtins.ValueError", sample)
    assert group["retry"] == f"penstock jobs kick --group {group['id']}"
    written = desk.done("jobs", "groups")
    for part in (group["id"], "shop.refuse", sample, "ValueError: no order 8", f"{group['retry']} --trial"):
        assert part in written


def test_groups_of_one_queue_or_task_can_be_asked_for(desk: Desk) -> None:
    desk.bury()
    assert len(desk.read("jobs", "groups", "--task", "shop.refuse", "--queue", "default")["groups"]) == 1
    assert desk.read("jobs", "groups", "--queue", "mail") == {"groups": []}
    result = desk.run("jobs", "groups", "--task", "shop.send")
    assert (result.stdout, result.stderr, result.exit_code) == ("", "No job is buried.\n", 0)


def test_group_chooses_jobs_without_all_matching(desk: Desk) -> None:
    ids = [desk.bury(), desk.bury()]
    other = desk.enqueue()
    desk.done("jobs", "bury", other)
    group = desk.read("jobs", "show", ids[0])["group"]
    assert sorted(job["id"] for job in desk.read("jobs", "list", "--group", group)["jobs"]) == sorted(ids)
    asked = desk.run("jobs", "kick", "--group", group, input="n\n")
    assert "Kick 2 jobs (2 buried)?" in asked.stderr
    assert desk.done("jobs", "kick", "--group", group, "--yes") == "2 kicked.\n"
    assert desk.done("jobs", "kick", "--group", group, "--yes") == "0 kicked.\n"
    assert desk.state(other) == "buried"
    assert f"{group}, see penstock jobs groups" not in desk.done("jobs", "show", ids[0])


def test_group_is_retried_over_a_while(desk: Desk) -> None:
    ids = [desk.bury() for _ in range(4)]
    group = desk.read("jobs", "show", ids[0])["group"]
    assert desk.done("jobs", "kick", "--group", group, "--spread", "4h", "--delay", "1h", "-y") == "4 kicked.\n"
    due = [job.due_ms for job in desk.store.engine.get(ids) if job is not None and job.due_ms is not None]
    hours = [round((at - due[0]) / 3_600_000) for at in due]
    assert hours == [0, 1, 2, 3]


def test_ids_are_kicked_over_a_while_too(desk: Desk) -> None:
    ids = [desk.bury(), desk.bury()]
    assert desk.done("jobs", "kick", *ids, "--delay", "1h") == "2 kicked.\n"
    assert {desk.state(id) for id in ids} == {"scheduled"}


@pytest.mark.slow
def test_trial_tells_how_it_ended_by_words_and_status(desk: Desk) -> None:
    bad, good = desk.bury(), desk.enqueue("shop.send", 7)
    desk.done("jobs", "bury", good)
    group = desk.read("jobs", "show", bad)["group"]
    with working(desk.url):
        failed = desk.run("jobs", "kick", bad, "--trial", "--timeout", "20s")
        told = desk.run("jobs", "kick", "--group", desk.read("jobs", "show", good)["group"], "--trial", "-y")
    assert (failed.exit_code, told.exit_code) == (1, 0)
    assert f"{bad} buried: " in failed.stdout
    assert f"{good} succeeded" in told.stdout
    assert desk.read("jobs", "show", bad)["failures"] == 5
    assert group


def test_trial_that_has_not_ended_in_time_says_so(desk: Desk) -> None:
    id = desk.bury()
    result = desk.run("jobs", "kick", id, "--trial", "--timeout", "50ms")
    assert result.exit_code == 1
    assert f"Job {id} is ready after 0.05 s" in result.stderr


def test_trial_without_a_job_says_so(desk: Desk) -> None:
    desk.enqueue()
    result = desk.run("jobs", "kick", "--group", "0" * 12, "--trial", "-y")
    assert (result.exit_code, result.stderr) == (1, "penstock: No job that can be kicked matches.\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--trial", "--delay", "1h", "1"], "leave --delay and --spread out"),
        (["--timeout", "1h", "1"], "give --trial with --timeout"),
        (["--group", "7", "1"], "not both"),
    ],
)
def test_options_that_do_not_go_together_are_refused(desk: Desk, words: list[str], complaint: str) -> None:
    result = desk.run("jobs", "kick", *words)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_show_tells_what_a_job_was_before_each_edit(desk: Desk) -> None:
    id = desk.bury()
    desk.done("jobs", "edit", id, "--args", "[8]", "--kwargs", '{"day":"monday"}')
    desk.done("jobs", "edit", id, "--queue", "mail", "--by", "ada")
    first, second = desk.read("jobs", "show", id)["edits"]
    assert (first["args"], first["kwargs"], first["queue"]) == ([7], {}, None)
    assert (second["by"], second["args"], second["queue"]) == ("ada", None, "default")
    written = desk.done("jobs", "show", id)
    assert f"before the edit by {first['by']}, {first['at']}\n[7]\n" in written
    assert f"before the edit by ada, {second['at']}\nqueue default\n" in written
