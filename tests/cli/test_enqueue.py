"""Jobs from the shell: what a word means, what is refused, and what comes out."""

import json

import pytest

from tests.cli.desk import APP, Desk, working


def arguments(desk: Desk, id: str) -> tuple[object, object]:
    job = desk.read("jobs", "show", id)
    return job["args"], job["kwargs"]


def test_only_the_id_is_written(desk: Desk) -> None:
    id = desk.done("enqueue", "shop.send", "7")
    assert desk.state(id.strip()) == "ready"
    assert len(id) == 37


def test_words_are_json_by_position_or_by_name(desk: Desk) -> None:
    id = desk.done("enqueue", "any.task", "-5", '"text"', "[1, null]", "to={}", 'note="a=b"').strip()
    assert arguments(desk, id) == ([-5, "text", [1, None]], {"to": {}, "note": "a=b"})


def test_named_arguments_may_come_as_one_object(desk: Desk) -> None:
    id = desk.done("enqueue", "any.task", "a=1", "--kwargs", '{"b": 2}').strip()
    assert arguments(desk, id) == ([], {"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["hello"], "'\"hello\"'"),
        (["to=ada lovelace"], "'to=\"ada lovelace\"'"),
        (["it's"], "it'\"'\"'s"),
        (["NaN"], "not JSON"),
        (['{"a": 1, "a": 2}'], "'a' twice"),
        (["[1,]"], "not JSON"),
        (["a=1", "a=2"], "'a' is given twice"),
        (["a=1", "--kwargs", '{"a": 2}'], "'a' is given twice"),
        (["--kwargs", "[1]"], "give a JSON object"),
        (["--prioritty", "5"], "Did you mean '--priority'"),
        (["--priority", "300"], "priority=300"),
        (["--delay", "soon"], "is not a duration"),
        (["--run-at", "tomorrow"], "2030-01-31T08:00"),
        (["--delay", "1s", "--run-at", "2030-01-01"], "not both"),
        (["--queue", "a b"], "is no queue name"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_way_out(desk: Desk, words: list[str], complaint: str) -> None:
    result = desk.run("enqueue", "any.task", *words)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stdout == ""
    assert not desk.file.exists() or desk.store.find() == []


def test_with_an_application_arguments_are_checked(desk: Desk) -> None:
    result = desk.run("enqueue", "-A", APP, "--url", desk.url, "shop.send", '"seven"')
    assert result.exit_code == 2
    assert "order_id is 'seven'; expected int" in result.stderr


def test_with_an_application_an_unknown_task_is_refused(desk: Desk) -> None:
    result = desk.run("enqueue", "-A", APP, "--url", desk.url, "shop.sned", "7")
    assert result.exit_code == 2
    assert "shop.send" in result.stderr


def test_terms_reach_the_job(desk: Desk) -> None:
    words = ("--queue", "slow", "--priority", "9", "--delay", "1h", "--tag", "big", "--tag", "red")
    job = desk.read("jobs", "show", desk.done("enqueue", "any.task", *words, "--expires", "2h").strip())
    assert (job["queue"], job["priority"], job["tags"], job["state"]) == ("slow", 9, ["big", "red"], "scheduled")
    assert job["created_at"] < job["due_at"] < job["expires_at"]


def test_the_holder_of_a_unique_key_is_the_answer(desk: Desk) -> None:
    first = desk.done("enqueue", "any.task", "1", "--unique-key", "k")
    second = desk.run("enqueue", "any.task", "2", "--unique-key", "k")
    assert (second.stdout, second.exit_code) == (first, 0)
    assert "nothing was added" in second.stderr


def test_waiting_without_a_worker_ends_in_time_and_says_why(desk: Desk) -> None:
    result = desk.run("enqueue", "any.task", "--wait", "50ms")
    assert result.exit_code == 1
    assert "No worker that knows task 'any.task' is running" in result.stderr
    assert result.stdout == ""


@pytest.mark.slow
def test_waiting_writes_the_result_or_the_error(desk: Desk) -> None:
    with working(desk.url):
        assert json.loads(desk.done("enqueue", "shop.send", "7", "--wait", "20s")) == "sent 7 to ada"
        failed = desk.run("enqueue", "shop.refuse", "7", "--wait", "20s")
    assert failed.exit_code == 1
    assert "LookupError: no order 7" in failed.stderr
    assert failed.stdout == ""
