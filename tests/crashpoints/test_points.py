"""SIGKILL once at each point before and after each call of the store and each effect: all comes right by itself."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.engine import Filter, Kick, WorkerInfo
from penstock.engines.open import open_engine
from penstock.model.job import ProcessId
from penstock.model.states import State
from tests.crashpoints.points import ARMED, HIT, IN_PAIRS, hit_file, points_of
from tests.crashpoints.remains import Remains
from tests.crashpoints.told import FAILED, SETTINGS, connected
from tests.polling import await_true, comes_true
from tests.torture.evidence import damage_of_file
from tests.torture.records import ENOUGH, FOLDER, STORE, Trail
from tests.worker.harness import ROOT, working

#: How long it may take until each point was hit, on a machine that is busy with other things too.
ALL_S = 300.0
#: How long pairs are tried, of which there are some 5,000, and how many there must be then.
PAIRS_S, LEAST_PAIRS = 1200.0, 500


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / HIT).mkdir()
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def engine(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Empty stores; none of them dies here."""
    kind: str = request.param
    url = f"sqlite:///{folder}/store.db"
    if kind != "sqlite":
        server = request.getfixturevalue({"redis": "redis_server", "postgresql": "postgres_server"}[kind])
        url = server.empty_store()
    monkeypatch.setenv(STORE, url)
    return kind


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_kill_at_each_point_loses_nothing_and_leaves_nothing_half_done(engine: str, folder: Path) -> None:
    points = points_of(engine)
    report = _kill(engine, folder, lambda: not _never_hit(folder, points), ALL_S)
    print(f"\n{engine}: {report}")
    assert _never_hit(folder, points) == [], report


@pytest.mark.torture
@pytest.mark.timeout(1500)
def test_a_kill_while_another_one_is_mended_loses_nothing_either(
    engine: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = points_of(engine)
    monkeypatch.setenv(IN_PAIRS, "1")
    all_pairs = len(points) ** 2
    report = _kill(engine, folder, lambda: len(os.listdir(folder / HIT)) > all_pairs, PAIRS_S)
    hit = os.listdir(folder / HIT)
    struck = {name.rpartition("+")[2] for name in hit}
    never = [point for point in points if hit_file(folder, point).name not in struck]
    print(f"\n{engine}: {len(hit)} of {all_pairs} pairs; {report}; never struck after another: {never}")
    assert len(hit) >= LEAST_PAIRS, report


def _kill(engine: str, folder: Path, is_over: Callable[[], bool], within_s: float) -> str:
    """Let everybody work and die until it is over, then look at what is left; tell how it went."""
    began = time.monotonic()
    _open_shop(engine)
    (folder / ARMED).write_text("\n".join(points_of(engine)))
    with _cast(folder) as cast:
        comes_true(lambda: is_over() or cast.poll() is not None, within_s)
        (folder / ENOUGH).touch()
        cast.wait(60)
    killed = time.monotonic()
    (folder / ARMED).write_text("")
    _finish(os.environ[STORE])
    store = open_engine(os.environ[STORE])
    remains = Remains(folder, store, _orders(engine))
    store.close()
    hit = len(os.listdir(folder / HIT))
    report = f"{hit} kills in {killed - began:.0f} s, {time.monotonic() - killed:.0f} s to finish; {remains}"
    told = f"{report}\n{(folder / 'log').read_text(errors='replace')[-4000:]}"
    assert list(Trail(folder / FAILED).news()) == [], told
    assert remains.wrongs() == {}, told
    if engine == "sqlite":
        assert damage_of_file(folder / "store.db") == [], told
    return report


def _never_hit(folder: Path, points: tuple[str, ...]) -> list[str]:
    hit = set(os.listdir(folder / HIT))
    return [point for point in points if hit_file(folder, point).name not in hit]


def _open_shop(engine: str) -> None:
    store = open_engine(os.environ[STORE])
    store.counts()
    store.close()
    if engine != "redis":
        with closing(connected()) as db:
            db.cursor().execute("CREATE TABLE orders (name TEXT)")
            db.commit()


def _orders(engine: str) -> set[str]:
    if engine == "redis":
        return set()
    with closing(connected()) as db:
        cursor = db.cursor()
        cursor.execute("SELECT name FROM orders")
        return {name for (name,) in cursor.fetchall()}


@contextmanager
def _cast(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crashpoints.cast"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _finish(url: str) -> None:
    """Let what still waits for a time be done, and dead leases lapse."""
    store = open_engine(url)
    while waiting := store.find(Filter(states=frozenset({State.SCHEDULED}), limit=1000)).jobs:
        store.alter([job.id for job in waiting], Kick())
    settings: dict[str, Any] = SETTINGS | {"burst": True}
    with working(url, **settings) as worker:
        assert worker.wait(120) == 0
    tender = ProcessId("the last one")
    store.enrol(WorkerInfo(id="the last one", lease_ms=60_000), [tender])
    await_true(lambda: not store.tend(tender).taken and len(store.workers()) == 1, "dead leases lapse")
    store.close()
