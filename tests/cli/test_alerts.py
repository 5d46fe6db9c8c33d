"""Alerts on the command line: shown without their secrets, and tested."""

import json

import pytest

from penstock.alerts import Alert
from penstock.worker.telling import Teller
from tests.cli.desk import Desk
from tests.receiver import Receiver


def test_alerts_are_shown_with_what_was_sent_last(desk: Desk) -> None:
    desk.bury()
    with Receiver() as receiver:
        url = receiver.url("s3cr3t", login="bob:pa55word@")
        Teller(desk.store.engine, "w1").look([Alert(url), Alert("carrierpigeon://s3cr3t", queue="default")])
    document = json.loads(desk.done("alerts", "--json", PENSTOCK_ALERTS=url))
    hook, pigeon = document["alerts"]
    assert (hook["configured_here"], hook["sent"], hook["failures"]) == (True, "1 job of shop.refuse is buried", 0)
    assert (pigeon["configured_here"], pigeon["queue"], pigeon["failures"]) == (False, "default", 1)
    assert "apprise knows no such URL" in pigeon["error"]
    written = desk.done("alerts", PENSTOCK_ALERTS=url)
    for part in (hook["name"], "all jobs", "1 job of shop.refuse is buried", "(configured elsewhere)", "1 times"):
        assert part in written
    for secret in ("s3cr3t", "pa55word", "bob"):
        assert secret not in written


def test_no_alert_says_how_to_have_one(desk: Desk) -> None:
    desk.enqueue()
    result = desk.run("alerts")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "PENSTOCK_ALERTS" in result.stderr
    assert desk.read("alerts") == {"alerts": []}


def test_test_sends_a_message_and_fails_if_it_cannot(desk: Desk) -> None:
    with Receiver() as receiver:
        told = desk.done("alerts", "test", PENSTOCK_ALERTS=receiver.url("s3cr3t"))
        assert receiver.titles == ["penstock: test of an alert"]
        assert told == f"{Alert(receiver.url('s3cr3t')).label}: sent\n"
        receiver.status = 500
        result = desk.run("alerts", "test", PENSTOCK_ALERTS=receiver.url("s3cr3t"))
    assert result.exit_code == 1
    assert "500" in result.stderr
    assert "s3cr3t" not in result.stderr


@pytest.mark.parametrize(
    ("words", "urls", "complaint"),
    [([], "", "No alert is configured here"), (["x"], "json://h", "No alert is named 'x'; known: json-")],
)
def test_nothing_to_test_is_said(desk: Desk, words: list[str], urls: str, complaint: str) -> None:
    result = desk.run("alerts", "test", *words, PENSTOCK_ALERTS=urls)
    assert result.exit_code == 1
    assert complaint in result.stderr


def test_settings_show_alerts_by_name_only(desk: Desk) -> None:
    written = desk.done("config", PENSTOCK_ALERTS="json://bob:pa55word@host/s3cr3t")
    assert "json-" in written
    assert not [secret for secret in ("pa55word", "s3cr3t", "bob") if secret in written]
    refused = desk.run("config", PENSTOCK_ALERTS="s3cr3t")
    assert refused.exit_code == 2
    assert "s3cr3t" not in refused.output


def test_alert_that_is_configured_no_more_can_be_forgotten(desk: Desk) -> None:
    desk.bury()
    with Receiver() as receiver:
        alert = Alert(receiver.url(), name="night shift")
        Teller(desk.store.engine, "w1").look([alert])
        assert "night shift (configured elsewhere)" in desk.done("alerts")
        assert desk.done("alerts", "forget", "night shift") == "What night shift has told is forgotten.\n"
    assert desk.read("alerts") == {"alerts": []}
    result = desk.run("alerts", "forget", "night shift")
    assert result.exit_code == 1
    assert "No worker has used an alert named 'night shift'" in result.stderr
