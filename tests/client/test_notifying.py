"""Messages that are sent by apprise to a server of this machine."""

import logging
import socket

import pytest

from penstock.notifying import scrub, send
from tests.receiver import Receiver

SECRET = "s3cr3t%21"


def test_message_arrives() -> None:
    with Receiver() as receiver:
        assert send(receiver.url(), "2 jobs are buried", "penstock jobs groups") is None
    [message] = receiver.messages
    assert (message["title"], message["message"], message["path"]) == (
        "2 jobs are buried",
        "penstock jobs groups",
        "/hook",
    )


def test_refusal_is_told_without_anything_of_the_url(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Receiver() as receiver:
        receiver.status = 403
        fault = send(receiver.url(f"hooks/{SECRET}?+X-Token=t0k3n", login=f"bob:{SECRET}@"), "title", "text")
    assert fault is not None
    assert "403" in fault
    for secret in (SECRET, "s3cr3t", "t0k3n", "bob", "127.0.0.1"):
        assert secret not in fault
        assert secret not in caplog.text
    assert receiver.messages == []


def test_server_that_is_not_there_is_told() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        fault = send(f"json://127.0.0.1:{probe.getsockname()[1]}/{SECRET}", "title", "text")
    assert fault is not None
    assert SECRET not in fault


def test_url_that_apprise_does_not_know_is_told_without_it() -> None:
    fault = send(f"carrierpigeon://{SECRET}", "title", "text")
    assert fault is not None
    assert "apprise knows no such URL" in fault
    assert SECRET not in fault


def test_every_part_of_a_url_is_kept_out_of_a_text() -> None:
    url = "slack://T1AAAA/B2BBBB/C3CCCC%2F?token=D4"
    assert scrub("posting to t1aaaa, b2bbbb with C3CCCC/ failed", url) == "posting to ***, *** with *** failed"
