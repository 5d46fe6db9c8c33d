"""What happens to the living of a torment besides kills: they are frozen past their leases, cut off, slowed down."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.servers.proxy import Proxy
from tests.torture.clock import SetClock
from tests.torture.gate import holders
from tests.torture.processes import Process, workers_processes

#: How long somebody is frozen, in leases.
FREEZE_LEASES = (0.3, 2.0)
#: How long a link is frozen or slow, and how long a reply over a slow one takes.
LINK_S, SLOW_S = (0.2, 1.2), (0.02, 0.2)
#: By how many seconds the clock of the machine is set: sometimes to where no lease and no deadline holds.
CLOCK_S = (-1.5, 3.0, 90.0, 3600.0)
#: So often it is set: not so often that what was kept for a day is forgotten.
MOST_JUMPS = 6


class Troubles:
    """Makes trouble, one at a time for each thing that can be troubled, and ends it in time.

    Args:
        link: between some of the living and their store, if it is a server.
        clock: of all processes and servers of the torment, if it can be set.
    """

    def __init__(
        self, folder: Path, lease_s: float, dice: random.Random, link: Proxy | None, clock: SetClock | None
    ) -> None:
        self._folder, self._lease_s, self._dice, self._link, self._clock = folder, lease_s, dice, link, clock
        self._frozen: list[Process] = []
        self._thaw_at = self._relieve_at = 0.0
        self.made: Counter[str] = Counter()

    def make(self, living: list[Process]) -> None:
        """Make one more, unless there is one already."""
        kinds: list[Callable[[], None]] = [lambda: self._freeze(living)] if not self._frozen else []
        if self._link is not None and not self._relieve_at:
            kinds += [self._cut, self._freeze_link, self._slow_link, self._lose_replies]
        if self._clock is not None and self.made["jumps of the clock"] < MOST_JUMPS:
            kinds.append(self._set_clock)
        if kinds:
            self._dice.choice(kinds)()

    def ease(self, *, all_of_it: bool = False) -> None:
        """End what has lasted long enough."""
        now = time.monotonic()
        if self._frozen and (all_of_it or now > self._thaw_at):
            self._thaw()
        if self._link is not None and self._relieve_at and (all_of_it or now > self._relieve_at):
            self._link.frozen, self._link.delay_s, self._link.lose_reply_to = False, 0.0, None
            self._relieve_at = 0.0

    # -- who stands still ---------------------------------------------------------------------------------------------

    def _freeze(self, living: list[Process]) -> None:
        """Freeze a supervisor, one of its processes, or all of them."""
        supervisors = [process for process in living if process.role == "supervisor"]
        if not supervisors:
            return
        boss = Process.found(self._dice.choice(supervisors).pid, "supervisor")
        if boss is None:
            return
        everyone = [boss, *workers_processes(boss)]
        self._frozen = self._dice.choice([everyone, everyone[:1], everyone[1:2] or everyone])
        for process in everyone:
            if process not in self._frozen:
                process.close()
        self._thaw_at = time.monotonic() + self._lease_s * self._dice.uniform(*FREEZE_LEASES)
        for process in self._frozen:
            self._freeze_outside_of_transactions(process)
        self.made["freezes"] += 1

    def _freeze_outside_of_transactions(self, process: Process) -> None:
        """Freeze a process, but not where it keeps a file from everybody, as the documents say it would."""
        process.freeze()
        while process.pid in holders(self._folder):
            process.send(signal.SIGCONT)
            time.sleep(0.001)
            process.freeze()

    def _thaw(self) -> None:
        for process in self._frozen:
            process.send(signal.SIGCONT)
            process.close()
        self._frozen = []

    # -- what lies between --------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        assert self._link is not None
        self._link.cut()
        self.made["cuts"] += 1

    def _freeze_link(self) -> None:
        assert self._link is not None
        self._link.frozen = True
        self._last("frozen links")

    def _slow_link(self) -> None:
        assert self._link is not None
        self._link.delay_s = self._dice.uniform(*SLOW_S)
        self._last("slow links")

    def _lose_replies(self) -> None:
        assert self._link is not None
        dice = random.Random(self._dice.random())
        self._link.lose_reply_to = lambda _: dice.random() < 0.05
        self._last("links that lose replies")

    def _last(self, what: str) -> None:
        self.made[what] += 1
        self._relieve_at = time.monotonic() + self._dice.uniform(*LINK_S)

    def _set_clock(self) -> None:
        assert self._clock is not None
        self._clock.turn(self._dice.choice(CLOCK_S))
        self.made["jumps of the clock"] += 1
