"""`penstock backup` and `penstock restore`, to files and through pipes."""

import json
import os
import resource
import signal
import stat

import pytest

from penstock.client import Penstock
from tests.cli.desk import Desk, command
from tests.moving.jobs import fill
from tests.polling import await_true


def other(desk: Desk) -> str:
    return f"sqlite:///{desk.file.with_name('other.db')}"


def test_backup_restores_into_another_store(desk: Desk) -> None:
    ids = [desk.bury(), desk.enqueue("shop.send", 1)]
    desk.done("queues", "pause", "mail")
    file = str(desk.file.with_name("shop.backup"))
    assert desk.done("backup", file) == f"Backed up 2 jobs and the switches of 1 queue to {file}.\n"
    told = desk.done("restore", file, "--url", other(desk))
    assert told == f"Restored 2 of 2 jobs into {other(desk)}.\n"
    with Penstock(other(desk)) as app:
        assert [str(app.job(id).state()) for id in ids] == ["buried", "ready"]
    again = desk.read("restore", file, "--url", other(desk))
    assert (again["jobs"], again["restored"], again["known"], again["refused"]) == (2, 0, 2, 0)


def test_backup_is_readable_by_its_owner_alone_and_stands_there_whole(desk: Desk) -> None:
    desk.enqueue()
    file = desk.file.with_name("shop.backup")
    file.write_text("an older one")
    before = os.umask(0)
    try:
        desk.done("backup", str(file))
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text().splitlines()[0])["penstock_backup"] == 1
    assert [path.name for path in file.parent.iterdir() if "backup" in path.name] == ["shop.backup"]


def test_backup_that_is_killed_leaves_the_older_one(desk: Desk) -> None:
    fill(desk.store.engine, 4000)
    file = desk.file.with_name("shop.backup")
    file.write_text("an older one")
    with command("backup", str(file), "--url", desk.url) as process:
        while not [path for path in file.parent.iterdir() if path.name.startswith(".shop.backup.")]:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert file.read_text() == "an older one"


@pytest.mark.slow
def test_restore_that_is_interrupted_can_be_done_again(desk: Desk) -> None:
    fill(desk.store.engine, 10_000)
    file = str(desk.file.with_name("shop.backup"))
    desk.done("backup", file)
    with Penstock(other(desk)) as app, command("restore", file, "--url", other(desk)) as process:
        await_true(lambda: sum(sum(states.values()) for states in app.counts().values()))
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Run it again for the rest" in told
    again = desk.read("restore", file, "--url", other(desk))
    assert (again["jobs"], again["restored"] + again["known"], again["refused"]) == (again["jobs"], again["jobs"], 0)
    assert 0 < again["known"] < again["jobs"]


def test_backup_for_which_there_is_no_room_says_so_and_leaves_the_older_one(desk: Desk) -> None:
    fill(desk.store.engine, 2000)
    file = desk.file.with_name("shop.backup")
    file.write_text("an older one")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        told = desk.run("backup", str(file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (told.exit_code, told.stderr) == (
        1,
        f"penstock: {file} cannot be written: File too large. What was there before is as it was.\n",
    )
    assert [path.read_text() for path in file.parent.iterdir() if "backup" in path.name] == ["an older one"]


def test_backup_and_restore_go_through_pipes(desk: Desk) -> None:
    desk.enqueue()
    written = desk.run("backup", "-")
    assert (written.exit_code, written.stderr) == (0, "Backed up 1 job.\n")
    told = desk.done("restore", "-", "--url", other(desk), input=written.stdout)
    assert told.startswith("Restored 1 of 1 job into ")


def test_running_jobs_are_told(desk: Desk) -> None:
    id = desk.enqueue()
    desk.hand().claim()
    file = str(desk.file.with_name("shop.backup"))
    assert "1 job was running" in desk.done("backup", file)
    told = desk.run("restore", file, "--url", other(desk))
    assert "1 job was running" in told.stderr
    with Penstock(other(desk)) as app:
        assert str(app.job(id).state()) == "ready"


def test_dry_run_examines_the_file_alone(desk: Desk) -> None:
    desk.enqueue()
    file = desk.file.with_name("shop.backup")
    desk.done("backup", str(file))
    told = desk.done("restore", str(file), "--dry-run", "--url", other(desk))
    assert told.startswith("A sound backup of 1 job, taken ")
    assert not desk.file.with_name("other.db").exists()


@pytest.mark.parametrize("keep", [10, -10])
def test_file_that_is_no_whole_backup_is_refused_by_name(desk: Desk, keep: int) -> None:
    desk.enqueue()
    file = desk.file.with_name("shop.backup")
    desk.done("backup", str(file))
    file.write_bytes(file.read_bytes()[:keep])
    told = desk.run("restore", str(file), "--url", other(desk))
    assert (told.exit_code, f"{file}: " in told.stderr) == (1, True)
    assert not desk.file.with_name("other.db").exists()


def test_places_that_cannot_be_used_are_named(desk: Desk) -> None:
    desk.enqueue()
    folder = desk.file.parent
    for words, message in (
        (("backup", str(folder)), "is a folder"),
        (("backup", str(folder / "nowhere" / "a")), "cannot be written: No such file"),
        (("restore", str(folder / "nothing")), "cannot be read: No such file"),
    ):
        told = desk.run(*words)
        assert (told.exit_code, message in told.stderr) == (1, True), told.stderr
