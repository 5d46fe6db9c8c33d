"""The same drain at several backlogs and with a long history: what a claim costs must not depend on either."""

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.counting import rate
from benchmarks.figures import Figure, interleaved, ratios
from benchmarks.stores import Store
from benchmarks.tasks import noop
from benchmarks.workers import producer, worker
from penstock.model.states import State

__all__ = ["measure"]

_KEEP = 100_000_000
_SMALLEST = 1000
_WARM_UP = 5000


def measure(bench: Bench) -> Iterator[Figure]:
    """Give the rate of completions while a producer holds the backlog, for each backlog and with a history."""
    largest, middle = bench.size(1_000_000, 50_000, step=1000), bench.size(100_000, 20_000, step=1000)
    backlogs = sorted({_SMALLEST, middle, largest})
    history, timed = bench.size(1_000_000, 50_000, step=1000), bench.size(50_000, 10_000, step=5000)
    bench.say(f"preparing backlogs of {', '.join(f'{backlog:,}' for backlog in backlogs)} and {history:,} ended jobs")
    held = {f"backlog of {backlog:,} held": Held(bench, backlog, 0, timed) for backlog in backlogs}
    held[f"history of {history:,} ended jobs"] = Held(bench, _SMALLEST, history, timed)
    bench.say(f"{timed:,} completions while a producer holds the backlog")
    samples = interleaved({title: one.measure for title, one in held.items()}, bench.pick(5, 1))
    for title, one in held.items():
        note = f"{timed:,} completions; at least {one.lowest:,} ready"
        yield Figure.of(f"backlog.{one.name}", title, "jobs/s", samples[title], note=note)
        one.store.remove()
    smallest, *others = held
    for title in others:
        changed = ratios(samples[title], samples[smallest])
        yield Figure.of(f"backlog.{held[title].name}.ratio", f"{title}, to {smallest}", "ratio", changed)


class Held:
    """One store whose backlog a producer holds while a worker works on it.

    Attributes:
        lowest: the fewest ready jobs that were seen while completions were counted.
    """

    def __init__(self, bench: Bench, backlog: int, history: int, timed: int) -> None:
        self._backlog, self._timed, self.lowest = backlog, timed, backlog
        self.name = "history" if history else str(backlog)
        self.store = Store(bench.place, f"backlog-{self.name}", keep=_KEEP)
        if history:
            self.store.complete(noop, history)
        self.store.fill(noop, backlog)

    def measure(self) -> float:
        """Give completions per second."""
        after = self.store.completed() + _WARM_UP
        with producer(self.store.url, self._backlog), worker(self.store.url) as tree:
            return rate(self._completed, self._timed, after=after, tree=tree)

    def _completed(self) -> int:
        ready, completed = self.store.count(State.READY, State.SUCCEEDED)
        self.lowest = min(self.lowest, ready)
        return completed
