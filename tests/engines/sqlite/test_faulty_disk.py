"""A disk that fails at the Nth call, for every N: each request is accepted and stored, or refused and absent."""

import ctypes
import errno
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.engines.sqlite import SqliteEngine
from penstock.engines.sqlite.ballast import Ballast
from penstock.model.errors import EngineDown, EngineFull, EngineUnavailable
from penstock.testing.conformance.trial import change, new_job, want
from tests.engines.sqlite.children import Child, tell
from tests.engines.sqlite.jobs import P1, add, assert_sound, enrol, is_stored, opened, run_all

WRITES, SYNCS = 1, 2
CASES = {
    "write-eio": (WRITES, 1, errno.EIO, 0),
    "write-torn": (WRITES, 1, errno.EIO, 1),
    "write-full": (WRITES, 1, errno.ENOSPC, 0),
    "sync-eio": (SYNCS, 1, errno.EIO, 0),
    "all-from-here-on": (WRITES | SYNCS, 1_000_000, errno.EIO, 1),
}


@pytest.fixture(scope="module")
def faulty_disk(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the library that makes a disk fail; without a compiler the file-size limit alone does."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is no C compiler to build the faulty disk with")
    library = tmp_path_factory.mktemp("faulty") / "faulty_disk.so"
    source = Path(__file__).with_name("faulty_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return str(library)


@pytest.mark.parametrize("verb", ["add", "exchange"])
@pytest.mark.parametrize("case", CASES)
def test_each_call_of_the_disk_may_fail(tmp_path: Path, faulty_disk: str, verb: str, case: str) -> None:
    path = tmp_path / "store.db"
    with Child(sweep, str(path), verb, case, LD_PRELOAD=faulty_disk) as child:
        refused, accepted = child.heard()
        child.finish()
    if (verb, case) == ("exchange", "write-full"):
        assert refused == 0, "one full write is made good by the retry"
    else:
        assert refused >= 1, "no call of the disk was made to fail"
    assert accepted >= 1
    assert_sound(path)


@pytest.mark.parametrize("case", ["write-eio", "sync-eio", "write-full"])
def test_checkpoint_that_fails_does_not_fail_the_call_before_it(tmp_path: Path, faulty_disk: str, case: str) -> None:
    path = tmp_path / "store.db"
    with Child(fail_while_checkpointing, str(path), case, LD_PRELOAD=faulty_disk) as child:
        assert child.heard() == "all accepted"
        child.finish()
    assert_sound(path)


def test_ballast_lets_jobs_finish_on_a_full_disk(tmp_path: Path, faulty_disk: str) -> None:
    path = tmp_path / "store.db"
    with Child(finish_on_a_full_disk, str(path), LD_PRELOAD=faulty_disk) as child:
        assert child.heard() == "finished"
        child.finish()
    assert_sound(path)


@pytest.mark.parametrize("verb", ["add", "exchange"])
def test_file_that_may_not_grow_refuses_whole_requests(tmp_path: Path, verb: str) -> None:
    """The limit of a file's size cuts a write at any byte, as a full disk does; no library is needed for it."""
    path = tmp_path / "store.db"
    with Child(sweep_sizes, str(path), verb) as child:
        refused, accepted = child.heard()
        child.finish()
    assert refused >= 3
    assert accepted >= 1
    assert_sound(path)


# -- children ---------------------------------------------------------------------------------------------------------


class Attempts:
    """One verb, tried again and again, each time with other jobs; remembers what was refused."""

    def __init__(self, path: str, verb: str) -> None:
        self.engine = opened(path, durability="full")
        self.looker = opened(path)
        self.beat, self.refused, self.accepted = 0, 0, 0
        enrol(self.engine)
        self.attempt: Callable[[int], None] = {"add": self._add, "exchange": self._exchange}[verb]

    def prepare(self, number: int) -> None:
        """Have a job running, so that the exchange under test finishes it and claims another."""
        add(self.engine, new_job(f"first {number}"), new_job(f"second {number}"))
        self.beat += 1
        self.changes = [change(claim) for claim in self.engine.exchange(P1, self.beat, (), want(limit=1)).claims]
        assert len(self.changes) == 1

    def check(self, number: int, is_accepted: bool) -> None:
        """See, without the fault, that all of it took effect or nothing; then repeat it, which must succeed."""
        self.accepted += is_accepted
        self.refused += not is_accepted
        for engine in (self.looker, self.engine):
            assert self._took_effect(engine, number) == (is_accepted, is_accepted), number
        if not is_accepted:
            self.attempt(number)
            assert self._took_effect(self.looker, number) == (True, True)

    def _add(self, number: int) -> None:
        jobs = [new_job(f"new {number} {letter}", args=f'["{"x" * 3000}"]') for letter in "ab"]
        add(self.engine, *jobs)

    def _exchange(self, _: int) -> None:
        answer = self.engine.exchange(P1, self.beat + 1, self.changes, want(limit=1))
        assert answer.late == ()
        self.beat += 1
        self.engine.exchange(P1, self.beat + 1, [change(claim) for claim in answer.claims], None)
        self.beat += 1

    def _took_effect(self, engine: SqliteEngine, number: int) -> tuple[bool, bool]:
        if self.attempt == self._add:
            return is_stored(engine, f"new {number} a"), is_stored(engine, f"new {number} b")
        jobs = engine.get([self.changes[0].id])
        ended = jobs[0] is not None and jobs[0].state.is_final
        return ended, ended


def sweep(path: str, verb: str, case: str) -> None:
    disk = ctypes.CDLL(None)
    attempts = Attempts(path, verb)
    kinds, times, error, torn = CASES[case]
    for number in range(1, 200):
        attempts.prepare(number)
        disk.fault_arm(path.encode(), kinds, ctypes.c_long(number), ctypes.c_long(times), error, torn)
        is_accepted = try_once(attempts, number, EngineFull if error == errno.ENOSPC else EngineDown)
        calls = disk.fault_disarm()
        attempts.check(number, is_accepted)
        if calls < number:
            break
    tell([attempts.refused, attempts.accepted])
    attempts.engine.close()
    attempts.looker.close()


def sweep_sizes(path: str, verb: str) -> None:
    attempts = Attempts(path, verb)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number in range(1, 60):
        attempts.prepare(number)
        size = Path(f"{path}-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + (number - 1) * 1031, limits[1]))
        is_accepted = try_once(attempts, number, EngineUnavailable)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        attempts.check(number, is_accepted)
        if is_accepted:
            break
    tell([attempts.refused, attempts.accepted])
    attempts.engine.close()
    attempts.looker.close()


def try_once(attempts: Attempts, number: int, expected: type[EngineUnavailable]) -> bool:
    before = attempts.beat
    try:
        attempts.attempt(number)
    except expected:
        return attempts.beat > before
    return True


def fail_while_checkpointing(path: str, case: str) -> None:
    """Let every write to the database itself fail, while the log beside it works."""
    disk = ctypes.CDLL(None)
    engine = opened(path)
    kinds, _, error, torn = CASES[case]
    for number in range(1000):
        add(engine, new_job(f"job {number}"))
        if number == 300:
            disk.fault_arm_exactly(path.encode(), kinds, error, torn)
    assert disk.fault_disarm() > 0
    assert all(is_stored(engine, f"job {number}") for number in range(1000))
    engine.close()
    tell("all accepted")


def finish_on_a_full_disk(path: str) -> None:
    disk = ctypes.CDLL(None)
    engine = opened(path)
    process = enrol(engine)
    ballast = Ballast(Path(f"{path}-penstock"))
    engine.tend(process)
    assert ballast.path.stat().st_blocks * 512 >= 8 * 1024 * 1024
    for number in range(50):
        add(engine, new_job(f"job {number}"))
    disk.fault_fill(path.encode(), str(ballast.path).encode())
    refusals = 0
    while refusals < 3:
        refusals += is_refused(engine)
    assert ballast.path.stat().st_size > 0
    assert run_all(engine, process) >= 50
    assert ballast.path.stat().st_size == 0
    disk.fault_disarm()
    engine.tend(process)
    assert ballast.path.stat().st_size > 0
    add(engine, new_job("after"))
    engine.close()
    tell("finished")


def is_refused(engine: SqliteEngine) -> bool:
    job = new_job(args=f'["{"x" * 5000}"]')
    try:
        add(engine, job)
    except EngineFull:
        assert not is_stored(engine, job.id)
        return True
    return False
