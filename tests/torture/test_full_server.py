"""A PostgreSQL whose disk is full: new work is refused, accepted work ends once there is room, all by itself."""

import os
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from penstock.client import Penstock
from penstock.engine import AddRequest, Engine, WorkerInfo
from penstock.model.errors import EngineError, EngineFull
from penstock.model.job import NewJob, ProcessId
from penstock.model.states import State
from penstock.testing.conformance.trial import change, new_job, want
from tests.conftest import start
from tests.polling import await_true
from tests.servers.postgres import PostgresServer
from tests.torture.records import EFFECTS, STORE, Trail
from tests.worker.harness import working

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

APP = "tests.torture.jobs:app"
WORK = "tests.torture.jobs.work"
DISK_MIB = 32
P = ProcessId("p")


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="penstock-postgres-") as folder:
        server = PostgresServer(Path(folder), fsync="off")
        start(server)
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture
def disk(server: PostgresServer) -> Iterator[Path]:
    """Mount a small disk in memory that the server may write to, where this user may."""
    folder = server.folder / "disk"
    folder.mkdir()
    owner = "" if server.account is None else ",uid={},gid={}".format(*server.account)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=700{owner}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a small disk")
    try:
        yield folder
    finally:
        server.kill()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def url(server: PostgresServer, disk: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the URL of a database on that disk; the server's log of transactions is on another."""
    (disk / "tables").mkdir()
    if server.account is not None:
        os.chown(disk / "tables", *server.account)
    with psycopg.connect(server.url, autocommit=True) as db:
        db.execute(f"CREATE TABLESPACE small LOCATION '{disk / 'tables'}'".encode())
        db.execute("CREATE DATABASE small TABLESPACE small")
    url = server.url.removesuffix("/postgres") + "/small"
    monkeypatch.setenv(STORE, url)
    return url


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):  # there is no room for one more
                while True:
                    filler.write(bytes(size))
    assert os.statvfs(disk).f_bavail == 0


def until_refused(add: Callable[[], str]) -> list[str]:
    """Add jobs until the disk is full; answers the ids of those that were accepted."""
    ids: list[str] = []
    with pytest.raises(EngineFull, match="Free space"):
        ids.extend(iter(add, None))
    return ids


def add(engine: Engine, job: NewJob) -> str:
    [[added]] = engine.add([AddRequest((job,))])  # type: ignore[misc]
    return added.id


def make_room(disk: Path) -> None:
    (disk / "filler").unlink()


def test_full_disk_refuses_new_jobs_and_running_ones_end_once_there_is_room(url: str, disk: Path) -> None:
    with Penstock(url) as app:
        engine = app.engine
        engine.enrol(WorkerInfo(id="w", lease_ms=60_000), [P])
        accepted = [f"accepted-{n}" for n in range(500)]
        engine.add([AddRequest(tuple(new_job(id) for id in accepted))])
        running = engine.exchange(P, 1, (), want()).claims
        assert len(running) == 500
        fill(disk)
        large = f'["{"x" * 20_000}"]'
        accepted += until_refused(lambda: add(engine, new_job(args=large)))
        ended = [change(claim, result=b'"' + b"x" * 2000 + b'"') for claim in running]
        with pytest.raises(EngineFull):
            engine.exchange(P, 2, ended, None)
        make_room(disk)
        assert engine.exchange(P, 2, ended, None).late == ()
        accepted.append(add(engine, new_job(args=large)))
        assert (count(app, State.SUCCEEDED), count(app, State.READY)) == (500, len(accepted) - 500)


def test_worker_on_a_full_disk_goes_on_by_itself_once_there_is_room(url: str, disk: Path, folder: Path) -> None:
    with Penstock(url) as app, working(url, app=APP, lease="30s", slots=4) as worker:
        await_true(lambda: app.workers(), "the worker is there")
        ids = [app.enqueue(WORK, f"running {n}", 2.0).id for n in range(4)]
        await_true(lambda: count(app, State.RUNNING) == 4, "all of them run")
        fill(disk)
        ids += until_refused(lambda: app.enqueue(WORK, "x" * 20_000, 0.001).id)
        await_true(lambda: len([1 for stage, *_ in told(folder) if stage == "ended"]) >= 4, "they have ended")
        make_room(disk)
        await_true(lambda: unfinished(app) == 0, "all jobs end", 60)
        ids.append(app.enqueue(WORK, "after", 0.0).id)
        await_true(lambda: unfinished(app) == 0, "the next one ends")
        assert {job.state for job in app.engine.get(ids) if job is not None} == {State.SUCCEEDED}
        runs = Counter(id for stage, id, *_ in told(folder) if stage == "began")
        assert runs == dict.fromkeys(ids, 1)
        worker.signal(signal.SIGTERM)
        assert worker.wait(30) == 0


def told(folder: Path) -> list[list[str]]:
    return list(Trail(folder / EFFECTS).news())


def unfinished(app: Penstock) -> int:
    return count(app, State.READY, State.RUNNING, State.SCHEDULED)


def count(app: Penstock, *states: State) -> int:
    try:
        return sum(row.states.get(state, 0) for row in app.engine.counts() for state in states)
    except EngineError:
        return -1
