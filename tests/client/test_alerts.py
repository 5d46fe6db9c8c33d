"""Who is told of buried jobs, and what is to be told: values and decisions."""

import pytest
from msgspec.structs import replace

from penstock.alerts import (
    APART_MS,
    LONGEST_BACKOFF_MS,
    MOST_TOLD,
    NOTHING_TOLD,
    SENDING_MS,
    Alert,
    Telltale,
    after_failure,
    after_sending,
    begun,
    is_due,
    may_send,
    read_alerts,
    state_in,
    state_out,
    write_message,
)
from penstock.client import Penstock
from penstock.engine import Group
from penstock.model.errors import DurationInvalid, SettingsInvalid, TaskInvalid
from penstock.model.job import ErrorInfo, JobId
from penstock.remedies import JobGroup
from penstock.settings import load

SECRET = "s3cr3t"
URL = f"mailto://bob:{SECRET}@mail.example.org"
ALERT = Alert(URL, every_ms=900_000)
NOON = 1_800_000_000_000
ERROR = ErrorInfo("failed", type="builtins.ValueError", message="no order 7", where="shop.jobs:send")


def group(id: str = "a", count: int = 1, last_ms: int = NOON) -> Group:
    return Group(id, count, NOON - 5000, last_ms, JobId("job"))


def described(id: str = "a", count: int = 1, queue: str = "mail", task: str = "shop.send") -> JobGroup:
    return JobGroup(
        id=id, queue=queue, task=task, error=ERROR, count=count, first_ms=NOON - 5000, last_ms=NOON, sample=JobId("j7")
    )


def sent(*groups: Group, state: Telltale = NOTHING_TOLD, at: int = NOON) -> Telltale:
    return after_sending(ALERT, state, groups, groups, "title", at)


# -- what is configured -----------------------------------------------------------------------------------------------


def test_url_is_never_shown() -> None:
    for text in (repr(ALERT), str(ALERT), ALERT.label, ALERT.id, f"{[ALERT]}"):
        assert SECRET not in text
        assert "bob" not in text
    assert ALERT.label == f"mailto-{ALERT.id[:6]}"
    assert replace(ALERT, name="night shift").label == "night shift"


def test_alerts_are_told_apart_by_whom_they_tell_of_what() -> None:
    others = [replace(ALERT, queue="mail"), replace(ALERT, task="mail"), replace(ALERT, url="json://a")]
    assert len({alert.id for alert in (ALERT, *others)}) == 4
    assert replace(ALERT, every_ms=7, name="x").id == ALERT.id


def test_application_and_settings_add_up() -> None:
    app = Penstock(
        "memory://", alerts=[URL, {"url": "json://host/hook", "queue": "mail", "every": "1h", "name": "ops"}]
    )
    app.alert("slack://a/b/c", task=app.command("shop.send", ["true"]))
    app.alert(URL, queue="mail")
    app.alert(URL)
    assert len(app.alerts) == 4
    found = {alert.label: alert for alert in app.alerts}
    assert (found["ops"].queue, found["ops"].every_ms) == ("mail", 3_600_000)
    assert [alert.task for alert in app.alerts if alert.label.startswith("slack-")] == ["shop.send"]


def test_alerts_come_from_the_environment_with_blanks_between_them() -> None:
    found = load({}, {"PENSTOCK_ALERTS": f" {URL}\n json://host "}, None)
    assert [alert.url for alert in found.alerts] == [URL, "json://host"]
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (SECRET, "no URL"),
        ([SECRET], "no URL"),
        ([7], "no URL"),
        ({"url": URL}, "no list"),
        ([{"queue": "mail", "password": SECRET}], "'password'"),
        ([{"url": URL, "queue": "a b"}], "'a b'"),
        ([{"url": URL, "task": ""}], "task=''"),
        ([{"url": URL, "every": "10ms"}], "'10ms'"),
        ([{"url": URL, "every": "soon"}], "'soon'"),
    ],
)
def test_what_cannot_be_an_alert_is_refused_without_showing_it(value: object, why: str) -> None:
    with pytest.raises((TaskInvalid, DurationInvalid)) as refused:
        read_alerts(value)
    assert why in str(refused.value)
    with pytest.raises(SettingsInvalid) as fault:
        load({"alerts": value}, {}, None)
    for told in (refused, fault):
        assert why in str(told.value)
        assert SECRET not in str(told.value)


def test_alert_of_an_application_is_checked_at_once() -> None:
    app = Penstock("memory://")
    with pytest.raises(TaskInvalid) as refused:
        app.alert(SECRET)
    assert SECRET not in str(refused.value)


def test_alert_concerns_what_it_names_and_nothing_a_person_buried() -> None:
    assert ALERT.concerns(described())
    assert replace(ALERT, queue="mail", task="shop.send").concerns(described())
    assert not replace(ALERT, queue="slow").concerns(described())
    assert not replace(ALERT, task="shop.pay").concerns(described())
    assert not ALERT.concerns(replace(described(), error=ErrorInfo("buried", message="wrong")))


# -- what is to be told -----------------------------------------------------------------------------------------------


def test_news_is_told_once() -> None:
    state = sent(group())
    assert is_due(ALERT, NOTHING_TOLD, group(), NOON)
    assert not is_due(ALERT, state, group(), NOON + 10 * ALERT.every_ms)


@pytest.mark.parametrize("news", [group(count=2), group(last_ms=NOON + 1), group(count=2, last_ms=NOON - 1)])
def test_further_jobs_of_a_group_wait_for_the_next_message(news: Group) -> None:
    """Also one whose transaction ended late, so that its time lies before what was told."""
    state = sent(group())
    assert not is_due(ALERT, state, news, NOON + ALERT.every_ms - 1)
    assert is_due(ALERT, state, news, NOON + ALERT.every_ms)


def test_other_group_waits_for_the_least_time_between_messages_only() -> None:
    state = sent(group())
    assert is_due(ALERT, state, group("b"), NOON + 1)
    assert not may_send(state, NOON + APART_MS - 1)
    assert may_send(state, NOON + APART_MS)


def test_group_that_was_kicked_and_fails_again_is_news_but_still_waits_its_time() -> None:
    state = after_sending(ALERT, sent(group(count=9)), [group("b")], [group("b")], "title", NOON + APART_MS)
    again = group(count=1, last_ms=NOON + 70_000)
    assert not is_due(ALERT, state, again, NOON + 80_000)
    assert is_due(ALERT, state, again, NOON + ALERT.every_ms)


def test_while_one_worker_sends_no_other_does_until_it_has_been_silent_for_long() -> None:
    state = begun(ALERT, NOTHING_TOLD, "w1", NOON)
    assert (state.sender, state.label) == ("w1", ALERT.label)
    assert not may_send(state, NOON + SENDING_MS - 1)
    assert may_send(state, NOON + SENDING_MS)
    assert is_due(ALERT, state, group(), NOON + SENDING_MS)


def test_failure_tells_nothing_and_is_tried_again_more_and_more_seldom() -> None:
    state, now, pauses = begun(ALERT, NOTHING_TOLD, "w1", NOON), NOON, []
    for _ in range(12):
        state = after_failure(state, "no route " * 100, now)
        pauses.append(state.again_ms - now)
        assert not may_send(state, state.again_ms - 1)
        assert may_send(state, state.again_ms)
        now = state.again_ms
    assert pauses[:3] == [10_000, 20_000, 40_000]
    assert pauses[-1] == LONGEST_BACKOFF_MS
    assert (state.failures, len(state.error)) == (12, 300)
    assert is_due(ALERT, state, group(), now)
    assert sent(group(), state=state, at=now).failures == 0


def test_clock_that_was_wrong_silences_no_alert() -> None:
    wrong = NOON + 10**10
    state = after_failure(sent(group(), at=wrong), "no route", wrong)
    assert may_send(state, NOON)
    assert may_send(begun(ALERT, NOTHING_TOLD, "w1", wrong), NOON)
    assert is_due(ALERT, sent(group(last_ms=NOON), at=wrong), group(count=2), NOON)


def test_what_is_remembered_is_bounded_and_nothing_is_told_again() -> None:
    groups = [group(f"{number:04}", last_ms=NOON + number) for number in range(MOST_TOLD + 50)]
    state = sent(*groups, at=NOON + 9000)
    assert len(state.told) == MOST_TOLD
    later = NOON + 10 * ALERT.every_ms
    assert [one.id for one in groups if is_due(ALERT, state, one, later)] == []
    assert len(state_out(state)) < 64 * 1024
    assert is_due(ALERT, state, group("new", last_ms=later), later)


def test_state_is_read_as_it_was_written_and_damage_is_told_again() -> None:
    state = sent(group())
    assert state_in(state_out(state)) == state
    assert state_in(None) == state_in(b"{") == state_in(b"\xff") == NOTHING_TOLD


# -- messages ---------------------------------------------------------------------------------------------------------


def test_message_tells_what_failed_and_the_command_that_retries() -> None:
    title, text = write_message([described(count=41)], "sqlite:///shop.db")
    assert title == "41 jobs of shop.send are buried"
    for line in (
        "41 of shop.send in queue mail: ValueError: no order 7",
        "  raised in shop.jobs:send; buried within 5s",
        "  penstock jobs show j7",
        "  penstock jobs kick --group a",
        "Store: sqlite:///shop.db",
    ):
        assert line in text.splitlines()


def test_message_of_one_job_says_so() -> None:
    assert write_message([described()], "")[0] == "1 job of shop.send is buried"


def test_what_a_job_wrote_steers_neither_shell_nor_terminal() -> None:
    hostile = replace(
        described("$(reboot)", task="\x1b[2J"),
        sample=JobId("; reboot"),
        error=replace(ERROR, message="a\nb \x1b]0;", where="\x07"),
    )
    title, text = write_message([hostile], "")
    assert "kick --group '$(reboot)'" in text
    assert "show '; reboot'" in text
    assert "ValueError: a b ?]0;" in text
    assert (title + text).replace("\n", "").isprintable()


def test_message_about_many_groups_tells_of_the_largest() -> None:
    groups = [described(f"g{number}", count=number, task=f"t{number % 3}") for number in range(1, 15)]
    title, text = write_message(groups, "sqlite:///shop.db")
    assert title == "105 jobs of 3 tasks are buried"
    assert "kick --group g14" in text
    assert "kick --group g4\n" not in text
    assert "And 4 more groups; see `penstock jobs groups`." in text
