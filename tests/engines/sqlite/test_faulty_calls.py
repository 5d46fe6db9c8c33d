"""The Nth call of the disk fails, for every N, once or from then on: a call of the store is done or not, never half."""

import ctypes
import errno
import json
import os
import shutil
import signal
import sqlite3
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

from penstock.engines.sqlite import SqliteEngine
from penstock.model.errors import EngineUnavailable
from penstock.testing import TurnedClock
from tests.engines.sqlite.children import Child, tell
from tests.engines.sqlite.flows import FLOWS, Call, Flow, Shown, make_template, shown
from tests.engines.sqlite.test_faulty_disk import faulty_disk
from tests.worker.harness import open_files

__all__ = ["faulty_disk"]

WRITES, SYNCS, OPENS, SIZES = 1, 2, 4, 8
EVERY_KIND = WRITES | SYNCS | OPENS | SIZES
FOR_EVER = 1_000_000
SWEEP_S = 100.0


class Fault(NamedTuple):
    """How calls fail: with which error, how many, and whether half of what was to be written is."""

    error: int
    times: int
    torn: bool = False


FAULTS = {
    "EIO once": Fault(errno.EIO, 1),
    "EIO for ever": Fault(errno.EIO, FOR_EVER),
    "ENOSPC for ever": Fault(errno.ENOSPC, FOR_EVER),
    "short write, then EIO": Fault(errno.EIO, 1, torn=True),
    "ENOSPC once": Fault(errno.ENOSPC, 1),
    "short write, then ENOSPC for ever": Fault(errno.ENOSPC, FOR_EVER, torn=True),
}
SOME = tuple(FAULTS)[:4]
#: Making a store calls the disk many times, and everybody does it only once.
FEWER = {"make": ("EIO once",)}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: what is synced there costs nothing, and the faults are the same."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="penstock-") as made:
        yield Path(made)


@pytest.mark.slow
@pytest.mark.parametrize("flow", FLOWS)
def test_whichever_call_of_the_disk_fails_the_store_is_as_before_or_after(
    folder: Path, faulty_disk: str, flow: str
) -> None:
    _sweep(folder, faulty_disk, flow, FEWER.get(flow, SOME))


@pytest.mark.torture
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("flow", FLOWS)
def test_the_same_with_every_kind_of_fault(folder: Path, faulty_disk: str, flow: str) -> None:
    _sweep(folder, faulty_disk, flow, tuple(FAULTS))


def _sweep(folder: Path, faulty_disk: str, flow: str, faults: tuple[str, ...]) -> None:
    with Child(sweep, str(folder), flow, faults, LD_PRELOAD=faulty_disk) as child:
        swept = {fault: child.heard(SWEEP_S) for fault in faults}
        child.finish()
    print(f"\n{flow}: " + "; ".join(f"{fault}: {most} calls" for fault, (most, _) in swept.items()))
    assert [wrong for _, wrongs in swept.values() for wrong in wrongs] == []
    assert min(most for most, _ in swept.values()) >= 10


# -- in a process of its own ------------------------------------------------------------------------------------------


def sweep(folder: str, flow: str, faults: list[str]) -> None:
    """Fail each call of the disk with each fault; tell how many calls there were, and what came out wrong."""
    place = Place(Path(folder), FLOWS[flow])
    for name in faults:
        number, wrongs = 1, []
        while place.fail(number, FAULTS[name]):
            wrongs += [f"{name} at {number}: {wrong}" for wrong in place.wrongs]
            number += 1
        tell([number - 1, wrongs])


class Place:
    """Copies of one store, each of which meets one fault.

    Attributes:
        wrongs: what the last fault did that it should not have done.
    """

    def __init__(self, folder: Path, flow: Flow) -> None:
        self._template, self._copy, self._flow = folder / "template", folder / "copy", flow
        self._template.mkdir()
        self._path = self._copy / "store.db"
        if not flow.is_new:
            make_template(self._template / "store.db")
        self._in_child(lambda _: [])
        self._before = shown(self._path)
        assert self._in_child(lambda call: [told(call)]) == ["done"]
        self._after = shown(self._path)
        assert self._before != self._after
        self.wrongs: list[str] = []

    def fail(self, number: int, fault: Fault) -> bool:
        """Let one call of the disk fail, and what follows with it if it fails for ever; say whether there was one.

        Once the process dies right after it, once the same engine goes on.
        """
        self.wrongs = []
        calls, answer = self._in_child(lambda call: self._meet(call, number, fault))
        if calls < number:
            return False
        self._judge(answer)
        self._judge_store([self._after] if answer == "done" else [self._before, self._after])
        for answer in self._in_child(lambda call: self._meet_and_go_on(call, number, fault)):
            self._judge(answer)
        self._judge_store([self._after])
        return True

    def _meet(self, call: Call, number: int, fault: Fault) -> list[Any]:
        disk = ctypes.CDLL(None)
        first, times = ctypes.c_long(number), ctypes.c_long(fault.times)
        disk.fault_arm(bytes(self._copy), EVERY_KIND, first, times, fault.error, int(fault.torn))
        answer = told(call)
        disk.fault_disarm.restype = ctypes.c_long
        return [disk.fault_disarm(), answer]

    def _meet_and_go_on(self, call: Call, number: int, fault: Fault) -> list[str]:
        """Repeat the call while the fault lasts, if it does, and then without it."""
        answers = [self._meet(call, number, fault)[1]]
        if fault.times == FOR_EVER:
            held = [self._meet(call, 1, fault)[1], open_files(), self._meet(call, 1, fault)[1], open_files()]
            answers += [held[0], held[2]]
            if held[3] > held[1]:
                answers.append(f"and keeps {held[3] - held[1]} files more open each time")
        last = told(call)
        return [*answers, last if last == "done" else f"{last} without a fault"]

    def _in_child(self, act: Callable[[Call], list[Any]]) -> list[Any]:
        """Let a child bring a copy into the state of the flow and do something there; it ends by SIGKILL."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._template, self._copy)
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            self._live(writing, act)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            answer = pipe.read()
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL, answer
        answers: list[Any] = json.loads(answer)
        return answers

    def _live(self, writing: int, act: Callable[[Call], list[Any]]) -> NoReturn:
        try:
            clock = TurnedClock()
            engine = SqliteEngine(self._path, durability="full", clock=clock, timeout_s=1.0)
            answers = act(self._flow.prepare(engine, clock))
            os.write(writing, json.dumps(answers).encode())
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            traceback.print_exc()
            os._exit(1)

    # -- judging ------------------------------------------------------------------------------------------------------

    def _judge(self, answer: str) -> None:
        if answer not in {"done", "EngineDown", "EngineFull", "EngineReadOnly", "EngineBusy"}:
            self.wrongs.append(f"the call said {answer}")

    def _judge_store(self, allowed: list[Shown]) -> None:
        """Look as a process does that opens it anew."""
        found = shown(self._path)
        if found not in allowed:
            self.wrongs.append(f"there is {found}, not one of {allowed}")
        with closing(sqlite3.connect(self._path)) as db:
            lines = [line for (line,) in db.execute("PRAGMA integrity_check")]
        if lines != ["ok"]:
            self.wrongs.append(f"the file is damaged: {lines}")
        if found.counts != Counter(state for _, state, _ in found.jobs):
            self.wrongs.append(f"not as many as are counted: {found}")


def told(call: Call) -> str:
    """Make a call, and tell how it ended."""
    try:
        call()
    except EngineUnavailable as error:
        return type(error).__name__
    except Exception as error:  # noqa: BLE001 - what else it may be is what the test is about
        return f"{type(error).__name__}, which is no EngineUnavailable: {error}"
    return "done"
