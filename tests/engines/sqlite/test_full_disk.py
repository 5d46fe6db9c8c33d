"""A real disk that is full: new work is refused, accepted work ends, and room given back is noticed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.engines.sqlite import SqliteEngine
from penstock.engines.sqlite.ballast import Ballast
from penstock.model.errors import EngineFull
from penstock.testing.conformance.trial import change, new_job, want
from tests.engines.sqlite.jobs import add, add_one, assert_sound, enrol, is_stored, opened, stored_ids

DISK_MIB = 40
MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small disk in memory, where this user may."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(
            "this user may not mount a small disk; test_faulty_disk shows the same with a disk that only seems full"
        )
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def path(disk: Path) -> Path:
    return disk / "store.db"


def test_full_disk_refuses_new_jobs_and_lets_accepted_ones_finish(path: Path) -> None:
    engine = opened(path)
    process = enrol(engine)
    for _ in range(20):
        add(engine, *(new_job(args=f'["{"x" * 200}"]') for _ in range(50)))
    engine.tend(process)
    accepted = stored_ids(engine)
    running = engine.exchange(process, 1, (), want(limit=200)).claims
    fill(path.parent)
    accepted |= add_until_refused(engine)

    assert work_off(engine, process, [change(claim) for claim in running]) == len(accepted)
    assert engine.renew(process, [process]).void == ()
    with pytest.raises(EngineFull, match=r"running jobs need.*Free 16 MiB"):
        add_one(engine, "refused")
    assert stored_ids(engine) == accepted

    (path.parent / "filler").unlink()
    add_one(engine, "after")
    assert Ballast(engine._store.folder).path.stat().st_blocks * 512 >= 8 * MIB
    engine.close()
    assert_sound(path)


def test_tending_rebuilds_the_ballast_only_when_as_much_again_stays_free(path: Path) -> None:
    engine = opened(path)
    process = enrol(engine)
    ballast = Ballast(engine._store.folder)
    fill(path.parent, leave=12 * MIB)
    engine.tend(process)
    assert not ballast.path.exists()
    (path.parent / "filler").unlink()
    engine.tend(process)
    assert ballast.path.stat().st_blocks * 512 == 8 * MIB
    engine.close()


def test_new_store_on_a_full_disk_is_refused(path: Path) -> None:
    fill(path.parent)
    with pytest.raises(EngineFull):
        add_one(opened(path))
    (path.parent / "filler").unlink()
    engine = opened(path)
    assert is_stored(engine, add_one(engine))
    engine.close()
    assert_sound(path)


def fill(folder: Path, leave: int = 0) -> None:
    free = shutil.disk_usage(folder).free
    with (folder / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, free - leave)


def add_until_refused(engine: SqliteEngine) -> set[str]:
    accepted: set[str] = set()
    while True:
        job = new_job(args=f'["{"x" * 2000}"]')
        try:
            add(engine, job)
        except EngineFull:
            assert not is_stored(engine, job.id)
            return accepted
        accepted.add(job.id)


def work_off(engine: SqliteEngine, process: object, changes: list[object]) -> int:
    finished, beat = 0, 1
    while changes:
        beat += 1
        answer = engine.exchange(process, beat, changes, want(limit=100))  # type: ignore[arg-type]
        assert answer.late == ()
        finished += len(changes)
        changes = [change(claim) for claim in answer.claims]
    return finished
