"""The run: every contender in turn, round by round; whoever fails is named with its error, and the run goes on."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.counting import NotReached
from benchmarks.peers.contenders import Contender
from benchmarks.peers.environments import EnvironmentFailed, install
from benchmarks.peers.sessions import Killed, Session, drain, enqueue, kill
from benchmarks.places import Place
from benchmarks.workers import WorkerEnded

__all__ = ["Effort", "Findings", "Samples", "measure"]

#: The samples of each contender, by its key and what was measured.
Samples = dict[tuple[str, str], list[float]]


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        share: of the numbers of jobs to drain.
        spaced: how many jobs the latency is taken from, in each round.
        patience_s: how long the jobs of a killed worker may stay away.
    """

    rounds: int
    enqueue_s: float
    share: float
    spaced: int
    patience_s: float

    @classmethod
    def full(cls) -> "Effort":
        return cls(rounds=3, enqueue_s=1.0, share=1.0, spaced=60, patience_s=60.0)

    @classmethod
    def quick(cls) -> "Effort":
        return cls(rounds=1, enqueue_s=0.3, share=0.2, spaced=20, patience_s=8.0)

    def drained(self, contender: Contender) -> int:
        return max(100, round(contender.drained * self.share))


@dataclass
class Findings:
    """What came out.

    Attributes:
        failures: for each contender that could not be measured to the end, what it said.
    """

    samples: Samples = field(default_factory=lambda: defaultdict(list))
    kills: dict[str, Killed] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def measure(
    contenders: Sequence[Contender], places: Mapping[str, Place], effort: Effort, say: Callable[[str], None]
) -> Findings:
    """Measure all of them."""
    findings = Findings()
    for home in sorted({one.home for one in contenders if one.home}):
        say(f"environment of {home}")
        for one in contenders:
            if one.home == home and one.key not in findings.failures:
                with _noted(findings, one, say):
                    install(home)
    for number in range(effort.rounds):
        for one in contenders:
            if one.key not in findings.failures:
                say(f"round {number + 1} of {effort.rounds}: {one.title} on {one.store}")
                with _noted(findings, one, say):
                    _round(one, places[one.store], effort, findings.samples)
    for one in contenders:
        if one.recovers and one.key not in findings.failures:
            say(f"kill: {one.title} on {one.store}")
            with _noted(findings, one, say), _session(one, places[one.store]) as session:
                findings.kills[one.key] = kill(session, effort.patience_s)
    return findings


def _round(one: Contender, place: Place, effort: Effort, samples: Samples) -> None:
    with _session(one, place) as session:
        rates = enqueue(session, effort.enqueue_s)
    samples[one.key, "one"].append(rates[0])
    samples[one.key, "many"].append(rates[1])
    for processes in (1, 2):
        with _session(one, place) as session:
            drained = drain(session, processes, effort.drained(one), effort.spaced if processes == 1 else 0)
        samples[one.key, f"drain.{processes}"].append(drained.rate)
        samples[one.key, f"memory.{processes}"].append(drained.memory / 1e6)
        samples[one.key, "latency"] += drained.latencies_ms


@contextlib.contextmanager
def _session(one: Contender, place: Place) -> Iterator[Session]:
    session = Session.make(one, place.make(one.name))
    try:
        yield session
    finally:
        session.close()
        place.remove(session.url)


@contextlib.contextmanager
def _noted(findings: Findings, one: Contender, say: Callable[[str], None]) -> Iterator[None]:
    try:
        yield
    except (EnvironmentFailed, NotReached, WorkerEnded, RuntimeError, TimeoutError) as error:
        findings.failures[one.key] = f"{type(error).__name__}: {error}"
        say(f"{one.title} on {one.store} is left out from here: {findings.failures[one.key]}")
