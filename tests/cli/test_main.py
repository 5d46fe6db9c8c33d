"""The edge: help, options, errors, signals and pipes."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.desk import APP, ROOT, Desk, command, working

COMMANDS = ("worker", "dev", "demo", "enqueue", "doctor", "config", "migrate", "health", "bench")


def test_help_lists_commands_and_exit_statuses(desk: Desk) -> None:
    written = desk.done("--help")
    names = [
        "worker",
        "dev",
        "demo",
        "enqueue",
        "jobs",
        "queues",
        "workers",
        "doctor",
        "config",
        "migrate",
        "health",
        "bench",
    ]
    assert all(re.search(rf"^  {name} ", written, re.MULTILINE) for name in names)
    assert "130  interrupted" in written


@pytest.mark.parametrize(
    "words",
    [
        *([name] for name in COMMANDS),
        *(["jobs", verb] for verb in ["list", "show", "kick", "edit", "cancel", "bury", "delete", "reschedule"]),
        *(["queues", verb] for verb in ["list", "pause", "resume", "limit", "purge"]),
        *(["workers", verb] for verb in ("list", "drain")),
    ],
)
def test_every_command_has_help(desk: Desk, words: list[str]) -> None:
    assert "Usage: penstock" in desk.done(*words, "--help")


def test_help_imports_no_engine_worker_or_rich() -> None:
    program = (
        "import sys; from penstock.cli.main import cli; cli.main(['--help'], standalone_mode=False); "
        "print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(run.stdout.split())
    assert not loaded & {"rich", "sqlite3", "asyncio", "penstock.worker", "penstock.engines.sqlite"}


def test_version_is_shown(desk: Desk) -> None:
    assert desk.done("--version").startswith("penstock ")


def test_a_mistyped_command_is_answered_with_the_right_one(desk: Desk) -> None:
    result = desk.run("wroker")
    assert result.exit_code == 2
    assert "Did you mean 'worker'" in result.stderr


def test_url_may_stand_before_or_after_the_command(desk: Desk, tmp_path: Path) -> None:
    desk.enqueue()
    other = f"sqlite:///{tmp_path / 'other.db'}"
    for words in (["--url", desk.url, "jobs", "list"], ["--url", other, "jobs", "list", "--url", desk.url]):
        assert "shop.send" in desk.done(*words, PENSTOCK_URL="")


@pytest.mark.parametrize(
    ("url", "status", "complaint"),
    [
        ("sqlit:///shop.db", 2, "Did you mean sqlite:///shop.db"),
        ("sqlite://shop.db", 2, "write three"),
        ("shop.db", 2, "is no URL"),
        ("http://host", 2, "no engine"),
        ("sqlite:///shop.db?durabilty=normal", 2, "Did you mean 'durability'?"),
        ("memory://", 2, "private to each process"),
        ("sqlite:////no/such/folder/shop.db", 3, "There is no store"),
    ],
)
def test_a_wrong_url_is_told_without_a_traceback(desk: Desk, url: str, status: int, complaint: str) -> None:
    result = desk.run("jobs", "list", "--url", url)
    assert result.exit_code == status
    assert complaint in result.stderr
    assert result.stderr.startswith("penstock: ")


@pytest.mark.parametrize(
    ("app", "complaint"),
    [
        ("shop", "names no application"),
        ("no_such_module:app", "There is no module 'no_such_module'"),
        ("broken:app", "ZeroDivisionError: division by zero in line 2 of"),
        ("garbled:app", "in line 1 of"),
    ],
)
def test_a_wrong_application_is_told_without_a_traceback(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, app: str, complaint: str
) -> None:
    (tmp_path / "broken.py").write_text("x = 0\ny = 1 / x\n")
    (tmp_path / "garbled.py").write_text("x = (\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    result = desk.run("-A", app, "enqueue", "a.task")
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_an_operator_needs_no_application_with_a_url(desk: Desk) -> None:
    desk.enqueue()
    assert "shop.send" in desk.done("-A", "no_such_module:app", "--url", desk.url, "jobs", "list")


@pytest.mark.parametrize("url", ["shop.db", "http://host", "sqlite:///shop.db?timeout=soon"])
def test_a_worker_ends_at_once_with_a_wrong_url(desk: Desk, url: str) -> None:
    assert desk.run("worker", "-A", APP, "--url", url).exit_code == 2


def test_a_worker_needs_an_application(desk: Desk) -> None:
    result = desk.run("worker")
    assert result.exit_code == 2
    assert "-A module:app" in result.stderr


def test_all_faults_of_a_worker_are_told_at_once(desk: Desk) -> None:
    result = desk.run("worker", "-A", APP, "--slots", "many", "--lease", "5z", "--log-level", "loud")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 3


def test_output_that_nobody_reads_on_ends_silently(desk: Desk) -> None:
    for number in range(500):
        desk.enqueue("shop.send", number)
    process = command("jobs", "list", "--limit", "500", "--json", PENSTOCK_URL=desk.url)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(20) == 141


@pytest.mark.parametrize("words", [("jobs", "list"), ("jobs", "list", "--json"), ("backup", "-")])
def test_output_for_which_there_is_no_room_is_told_without_a_traceback(desk: Desk, words: tuple[str, ...]) -> None:
    desk.enqueue()
    with open("/dev/full", "w") as full:
        process = command(*words, stdout=full, PENSTOCK_URL=desk.url)
        _, told = process.communicate(timeout=20)
    assert told == "penstock: what this command writes has no place: No space left on device\n"
    assert process.returncode == 1


def test_no_colour_reaches_a_pipe(desk: Desk) -> None:
    desk.bury()
    process = command("jobs", "list", PENSTOCK_URL=desk.url)
    written, _ = process.communicate(timeout=20)
    assert "buried" in written
    assert "\x1b" not in written
    assert not any(line.endswith(" ") for line in written.splitlines())


def test_ctrl_c_ends_a_waiting_command(desk: Desk) -> None:
    process = command("enqueue", "a.task", "--wait", "60s", PENSTOCK_URL=desk.url)
    assert process.stderr is not None
    assert len(process.stderr.readline()) == 37
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=20)
    assert complaint.splitlines()[-1] == "penstock: interrupted"
    assert process.returncode == 130


@pytest.mark.slow
def test_a_worker_runs_what_was_enqueued_and_ends_in_burst(desk: Desk) -> None:
    ids = [desk.enqueue("shop.send", number) for number in range(3)]
    process = command("worker", "-A", APP, "--url", desk.url, "--burst", "--processes", "1")
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert [desk.state(id) for id in ids] == ["succeeded"] * 3


@pytest.mark.slow
def test_a_drained_worker_ends(desk: Desk) -> None:
    desk.enqueue("shop.send", 1)
    with working(desk.url) as process:
        desk.store.job(desk.store.find()[0].id).wait(30)
        (worker,) = desk.read("workers", "list")["workers"]
        assert "finishes what it has" in desk.done("workers", "drain", worker["id"])
        assert process.wait(30) == 0


@pytest.mark.slow
def test_ctrl_c_ends_a_worker_cleanly(desk: Desk) -> None:
    id = desk.enqueue("shop.send", 1)
    with working(desk.url) as process:
        desk.store.job(id).wait(30)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.mark.slow
def test_dev_takes_up_a_changed_source_file(desk: Desk, tmp_path: Path) -> None:
    source = tmp_path / "stall.py"
    header = "from penstock.client import Penstock\napp = Penstock()\n"
    text = header + "@app.task(name='stall.sell')\ndef sell():\n    return 1\n"
    source.write_text(text)
    process = command("dev", "-A", "stall:app", "--url", desk.url, "--shutdown-timeout", "1s", folder=tmp_path)
    try:
        assert desk.store.enqueue("stall.sell").result(30) == 1
        source.write_text(text.replace("return 1", "return 12"))
        until = time.monotonic() + 30
        while desk.store.enqueue("stall.sell").result(30) != 12:
            assert time.monotonic() < until, "the change was not taken up"
    finally:
        process.terminate()
        _, log = process.communicate(timeout=30)
    assert f"a module below {tmp_path} changes" in log


@pytest.mark.slow
def test_bench_measures_in_a_store_of_its_own(desk: Desk) -> None:
    process = command("bench", "--folder", str(desk.file.parent), "--json")
    written, complaint = process.communicate(timeout=100)
    assert process.returncode == 0, complaint
    assert '"jobs/s"' in written
    assert list(desk.file.parent.iterdir()) == []
