"""The example `web` answers as its README says."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.examples.place import copied, environment, working
from tests.polling import await_true

pytestmark = pytest.mark.slow


@contextmanager
def serving(folder: Path, most_waiting: int = 100) -> Iterator[str]:
    """Start the server on a free port and give its address."""
    command = [sys.executable, "server.py", "0", str(most_waiting)]
    server = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip().removeprefix("http://")
        finally:
            server.terminate()


def ask(address: str, method: str, path: str, body: str | None = None) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), json.loads(answer.read())
    finally:
        connection.close()


def test_report_is_accepted_at_once_and_can_be_followed(tmp_path: Path) -> None:
    folder = copied("web", tmp_path)
    with serving(folder) as address, working(folder, REPORT_PAGE_SECONDS="0.05"):
        status, headers, body = ask(address, "POST", "/reports", '{"city": "Paris"}')
        assert (status, headers["Location"]) == (202, body["status"])
        await_true(lambda: ask(address, "GET", body["status"])[2]["state"] == "succeeded", "the report is there")
        seen = ask(address, "GET", body["status"])[2]
    assert seen == {
        "id": body["id"],
        "state": "succeeded",
        "progress": {"done": 5, "of": 5},
        "result": "5 pages about Paris",
    }


def test_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    with serving(copied("web", tmp_path), most_waiting=1) as address:
        assert ask(address, "POST", "/reports", '{"city": "Paris"}')[0] == 202
        status, headers, body = ask(address, "POST", "/reports", '{"city": "Rome"}')
    assert status == 503
    assert int(headers["Retry-After"]) >= 1
    assert "full" in body["error"]


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with serving(copied("web", tmp_path)) as address:
        assert ask(address, "POST", "/reports", "Paris")[0] == 400
        assert ask(address, "POST", "/reports", '{"city": 7}')[0] == 400
        assert ask(address, "POST", "/elsewhere", "{}")[0] == 404
        assert ask(address, "GET", "/jobs/no-such-job")[0] == 404
        assert ask(address, "GET", "/")[0] == 404
