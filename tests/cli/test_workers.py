"""`workers list`, and which workers count as alive: one that was killed on this machine does not."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from penstock.engine import Counts, WorkerInfo, WorkerView
from penstock.engines.clock import SystemClock
from penstock.model.job import ProcessId
from penstock.model.states import State
from penstock.serving import birth_of, is_gone, live_workers, unserved
from tests.cli.desk import Desk, working


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that waits for the end of its input, as somebody's worker."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as made:
        yield made


def info_of(pid: int, **fields: Any) -> WorkerInfo:
    values = {
        "id": "w",
        "host": "here",
        "pid": pid,
        "boot": SystemClock().boot(),
        "birth": birth_of(pid),
        "tasks": ("shop.send",),
    }
    return WorkerInfo(**values | fields)


def test_worker_whose_process_lives_is_not_gone(process: "subprocess.Popen[bytes]") -> None:
    assert not is_gone(info_of(process.pid))


def test_killed_worker_is_gone_before_and_after_somebody_collects_it(process: "subprocess.Popen[bytes]") -> None:
    info = info_of(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(info)
    process.wait()
    assert is_gone(info)


def test_another_process_under_the_same_pid_is_not_the_worker(process: "subprocess.Popen[bytes]") -> None:
    info = info_of(process.pid)
    namespace, started = info.birth.split()
    assert is_gone(replace(info, birth=f"{namespace} {int(started) - 1}"))


@pytest.mark.parametrize("elsewhere", [{"boot": "another machine"}, {"birth": "pid:[1] 2"}, {"birth": ""}])
def test_nobody_can_tell_of_a_worker_of_another_machine_or_container(elsewhere: dict[str, str]) -> None:
    assert not is_gone(replace(info_of(os.getpid()), pid=2**22, **elsewhere))


def test_worker_that_is_gone_serves_nobody() -> None:
    gone = replace(info_of(os.getpid()), pid=2**22)
    view = WorkerView(info=gone, processes=(), lease_left_ms=1000)
    counts = [Counts("mail", "shop.send", {State.READY: 1})]
    assert live_workers([view]) == []
    assert unserved([view], counts) == counts


def test_list_shows_who_is_gone_and_how_long_the_lease_runs(desk: Desk, process: "subprocess.Popen[bytes]") -> None:
    desk.store.engine.enrol(info_of(process.pid, lease_ms=60_000), [ProcessId("p")])
    assert "gone" not in desk.done("workers", "list")
    assert desk.read("workers", "list")["workers"][0]["gone"] is False
    process.kill()
    process.wait()
    result = desk.run("workers", "list")
    line = result.stdout.splitlines()[-1]
    assert line.split()[-1] == "gone"
    assert line.split()[-2] in {"59s", "1m"}
    assert "once its lease has lapsed" in result.stderr
    assert desk.read("workers", "list")["workers"][0]["gone"] is True


def test_health_and_doctor_count_no_worker_that_is_gone(desk: Desk, process: "subprocess.Popen[bytes]") -> None:
    desk.store.engine.enrol(info_of(process.pid), [ProcessId("p")])
    assert desk.run("health").exit_code == 0
    process.kill()
    process.wait()
    assert desk.run("health").exit_code == 1
    told = [one for one in desk.read("doctor")["findings"] if one["subject"] == "workers"]
    assert f"pid {process.pid} on here is gone without a word" in told[-1]["found"]
    assert "Its lease lapses in" in told[-1]["remedy"]


@pytest.mark.slow
def test_worker_that_was_killed_is_gone_at_once(desk: Desk) -> None:
    id = desk.enqueue("shop.send", 1)
    with working(desk.url) as process:
        desk.store.job(id).wait(30)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        (worker,) = desk.read("workers", "list")["workers"]
    assert worker["gone"] is True
    assert worker["lease_left_ms"] > 10_000
