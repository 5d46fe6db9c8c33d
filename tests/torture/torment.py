"""Workers and producers on one store, and a killer among them who looks at what he finds before he kills."""

import json
import os
import random
import select
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self

from msgspec import Struct

from penstock.engine import Filter
from penstock.engines.open import open_engine
from penstock.model.errors import EngineUnavailable
from penstock.model.states import State
from tests.polling import await_true, comes_true
from tests.servers.process import ServerProcess
from tests.servers.proxy import Proxy
from tests.torture.clock import SetClock
from tests.torture.processes import Process, workers_processes
from tests.torture.records import ACCEPTED, ATTEMPTED, BLOWN, EFFECTS, ENOUGH, FOLDER, HISTORY, PROCESSES, STORE, Trail
from tests.torture.troubles import Troubles

ROOT = Path(__file__).parents[2]
#: How many of each are kept alive. Customers and the second supervisor reach a server over a link.
STAFF = {"supervisor": 2, "producer": 2, "customer": 1, "operator": 1}
SHARES = {"process": 0.46, "supervisor": 0.16, "producer": 0.32, "customer": 0.04, "operator": 0.02}
STORE_SHARE = 0.06
#: How often there is trouble besides, for each kill.
TROUBLE = 0.15
LEASE_S = 2.0
SETTINGS = {
    "app": "tests.histories.errands:app",
    "lease": f"{LEASE_S}s",
    "slots": 2,
    "children": 2,
    "shutdown_timeout": "5s",
    "log_level": "warning",
}
#: How often, and how long, the killer waits until his victim is at work.
PATIENCE, PATIENCE_S = 0.75, 1.0
LONGEST_PAUSE_MS = 25


class Kill(Struct, frozen=True):
    """One kill: who died, by whose hand, and what the store says it held then.

    Attributes:
        point: the crash point at which it killed itself; empty if it was killed from outside.
        running: claims whose code had begun and not ended.
        undelivered: claims whose code had ended.
        waiting: claims whose code had not begun.
    """

    pid: int
    role: str
    point: str = ""
    running: int = 0
    undelivered: int = 0
    waiting: int = 0


class Torment:
    """Keeps supervisors and producers alive, and kills them.

    Args:
        server: the store, if it is a server: it is killed and started again like the others.
        clock: of all that is started here, if it can be set.
    """

    def __init__(
        self, folder: Path, seed: str, url: str, server: ServerProcess | None = None, clock: SetClock | None = None
    ) -> None:
        self._folder, self._seed, self._dice = folder, seed, random.Random(seed)
        self._engine, self._server = open_engine(url), server
        self._link = None if server is None else Proxy(server.port)
        self._linked = {"url": self._server.url.replace(f":{server.port}/", f":{self._link.port}/")} if server else {}
        self.troubles = Troubles(folder, LEASE_S, random.Random(f"{seed} troubles"), self._link, clock)
        self._shares = SHARES if server is None else SHARES | {"store": STORE_SHARE}
        self._log = (folder / "log").open("ab")
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.nursery"],
            cwd=ROOT,
            env=os.environ
            | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", FOLDER: str(folder), STORE: url, HISTORY: "1"}
            | (clock.environment if clock is not None else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._living: list[Process] = []
        self._effects, self._blown = Trail(folder / EFFECTS), Trail(folder / BLOWN)
        self._processes, self._accepted = Trail(folder / PROCESSES), Trail(folder / ACCEPTED)
        self._attempted = Trail(folder / ATTEMPTED)
        self._pids: dict[str, int] = {}
        self._stage: dict[tuple[str, int], str] = {}
        self._busy: set[int] = set()
        self._size_of: dict[str, int] = {}
        self.accepted = 0
        self.kills: list[Kill] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.troubles.ease(all_of_it=True)
        for process in self._living:
            process.kill()
            process.close()
        self._engine.close()
        if self._link is not None:
            self._link.close()
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.close()
        self._nursery.wait()
        self._nursery.stdout.close()
        self._log.close()

    # -- the torment -------------------------------------------------------------------------------------------------

    def run(self, kills: int, jobs: int) -> None:
        """Go on until there were so many kills and accepted jobs."""
        while len(self.kills) < kills or self.accepted < jobs:
            self._staff()
            if self._dice.random() < TROUBLE:
                self.troubles.make(self._living)
            if len(self.kills) >= kills:
                self._wait_ms(LONGEST_PAUSE_MS)
            else:
                self._kill(self._dice.choices(list(self._shares), list(self._shares.values()))[0])
            self._count()

    def finish(self) -> None:
        """Let producers end what they are at, then kill the supervisors."""
        self.troubles.ease(all_of_it=True)
        (self._folder / ENOUGH).touch()
        for process in self._living:
            if process.role != "supervisor":
                await_true(process.has_ended, f"{process} ends")
        for process in self._living:
            if process.role == "supervisor":
                self._kill_worker(process)
        self._count()

    def work_off(self, within_s: float) -> bool:
        """Let one more worker do what is left; say whether it found nothing left in time."""
        worker = self._hire("last worker", settings=SETTINGS | {"burst": True, "processes": 2, "slots": 4})
        return worker is None or comes_true(worker.has_ended, within_s)

    def _staff(self) -> None:
        for process in [process for process in self._living if process.has_ended()]:
            self._living.remove(process)
            process.close()
        roles = Counter(process.role for process in self._living)
        for number in range(roles["supervisor"], STAFF["supervisor"]):
            self._hire("supervisor", settings=SETTINGS | {"processes": 1 + number} | (self._linked if number else {}))
        for role in ("producer", "customer", "operator"):
            for _ in range(roles[role], STAFF[role]):
                self._hire(role, **(self._linked if role == "customer" else {}))

    def _hire(self, role: str, **order: Any) -> Process | None:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        order |= {"role": role, "seed": f"{self._seed} {self._dice.random()}"}
        self._nursery.stdin.write(json.dumps(order).encode() + b"\n")
        self._nursery.stdin.flush()
        pid = int(self._nursery.stdout.readline())
        try:
            process = Process(pid, role)
        except ProcessLookupError:
            return None  # it has ended already
        self._living.append(process)
        return process

    def _await_work(self, victim: Process) -> None:
        """Wait, if in the mood, until the victim is at work, and then for a moment that nothing chooses."""
        if self._dice.random() < PATIENCE:
            until = time.monotonic() + PATIENCE_S
            while not self._is_at_work(victim) and not victim.has_ended() and time.monotonic() < until:
                self._wait_ms(5)
        self._wait_ms(self._dice.uniform(0, LONGEST_PAUSE_MS))

    def _is_at_work(self, victim: Process) -> bool:
        self._follow()
        self._count()
        return not self._busy.isdisjoint([victim.pid, *victim.children()])

    def _wait_ms(self, milliseconds: float) -> None:
        """Wait, but not when one of the living ends by itself."""
        self.troubles.ease()
        select.select([process.descriptor for process in self._living], [], [], milliseconds / 1000)

    # -- kills -------------------------------------------------------------------------------------------------------

    def _kill(self, role: str) -> None:
        if role == "store":
            self._kill_store()
            return
        living = [process for process in self._living if process.role == role]
        if role == "process":
            living = [one for boss in self._living if boss.role == "supervisor" for one in workers_processes(boss)]
        if living:
            victim = self._dice.choice(living)
            self._await_work(victim)
            self._kill_one(victim)
        if role == "process":
            for process in living:
                process.close()

    def _kill_one(self, victim: Process) -> None:
        match victim.role:
            case "supervisor":
                self._kill_worker(victim)
            case "process":
                victim.freeze()
                kill = self._look(victim, [victim])
                victim.kill()
                self._book(kill)
            case _:
                victim.kill()
                self._book(Kill(victim.pid, victim.role))

    def _kill_worker(self, supervisor: Process) -> None:
        """Kill a supervisor; its processes end with it, which the kernel sees to."""
        supervisor.freeze()
        processes = workers_processes(supervisor)
        for process in processes:
            process.freeze()
        kill = self._look(supervisor, processes)
        supervisor.kill()
        for process in processes:
            await_true(process.has_ended, f"{process} ends with {supervisor}")
            process.close()
        self._book(kill)

    def _kill_store(self) -> None:
        """Kill the store while others work, and start it again after a pause in which nobody reaches it."""
        assert self._server is not None
        self._wait_ms(self._dice.uniform(0, 10 * LONGEST_PAUSE_MS))
        pid = self._server.pid
        self._server.kill()
        self._wait_ms(self._dice.choice([0, 100, 500]))
        self._server.start()
        await_true(self._reaches_store, "the store is reached again")
        self.kills.append(Kill(pid, "store"))

    def _reaches_store(self) -> bool:
        try:
            self._engine.counts()
        except EngineUnavailable:
            return False
        return True

    def _look(self, victim: Process, processes: list[Process]) -> Kill:
        """See what stopped processes hold by the store, and how far each of these jobs has come."""
        self._follow()
        pids = {process.pid for process in processes}
        claims = self._held_by({id for id, pid in self._pids.items() if pid in pids})
        self._follow()
        stages = Counter(self._stage.get(claim, "waiting") for claim in claims)
        return Kill(victim.pid, victim.role, "", stages["began"], stages["ended"], stages["waiting"])

    def _held_by(self, ids: set[str]) -> list[tuple[str, int]]:
        """Give the claims of processes, each by its job and number."""
        running = self._engine.find(Filter(states=frozenset({State.RUNNING}), limit=1000)).jobs
        return [(job.id, job.claim_number) for job in running if job.process in ids]

    def _follow(self) -> None:
        for stage, id, number, _, pid in self._effects.news():
            self._stage[id, int(number)] = stage
            self._busy.add(int(pid))
        for pid, id in self._processes.news():
            self._pids[id] = int(pid)

    def _book(self, kill: Kill) -> None:
        """Book a kill, unless the victim was quicker."""
        self._count()
        if kill.pid not in {known.pid for known in self.kills if known.point}:
            self.kills.append(kill)

    def _count(self) -> None:
        for pid, role, point in self._blown.news():
            self.kills.append(Kill(int(pid), role, point))
        accepted = [batch for (batch,) in self._accepted.news()]  # read first: each was attempted before
        for pid, batch, size in self._attempted.news():
            self._busy.add(int(pid))
            self._size_of[batch] = int(size)
        self.accepted += sum(self._size_of[batch] for batch in accepted)
