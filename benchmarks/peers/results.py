"""What the run found out, as figures with their goals, as tables, and as one JSON document."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from benchmarks.figures import Figure, Goal, at_least, at_most, percentile, ratios
from benchmarks.peers.contenders import BARE, CONTENDERS, OWN, STORES, Contender
from benchmarks.peers.rounds import Findings
from benchmarks.peers.sessions import HELD, Killed
from benchmarks.report import as_document, shown

__all__ = ["COLUMNS", "document", "figures_of", "table"]

COLUMNS = (
    "queue",
    "enqueue, one by one /s",
    "in bulk /s",
    "drain, 1 process /s",
    "2 processes /s",
    "idle latency p50 / p99 ms",
    "memory 1 / 2 processes MB",
    f"of {HELD} jobs after a kill",
    "interrupted ones again after",
)
_TITLES = {
    "one": ("enqueue one by one", "jobs/s"),
    "many": ("enqueue in bulk", "jobs/s"),
    "drain.1": ("drain, 1 process", "jobs/s"),
    "drain.2": ("drain, 2 processes", "jobs/s"),
    "memory.1": ("memory of 1 process", "MB PSS"),
    "memory.2": ("memory of 2 processes", "MB PSS"),
}
#: Of penstock's own figures, by store and what was measured.
_GOALS: dict[str, Mapping[str, Goal]] = {
    "redis": {
        "many": at_least(60_000),
        "drain.1": at_least(40_000),
        "p50": at_most(0.8),
        "p99": at_most(2.0),
        "one_to.bare": at_least(0.6),
        "drain_to.dramatiq-results": at_least(4),
        "drain_two_to_one": at_least(1),
    },
    "postgresql": {
        "many": at_least(40_000),
        "drain.1": at_least(30_000),
        "p50": at_most(1.5),
        "p99": at_most(5.0),
        "one_to.bare": at_least(0.6),
        "drain_to.pgqueuer": at_least(1),
        "drain_two_to_one": at_least(1),
    },
    "sqlite": {"drain_to.huey": at_least(5), "drain_two_to_one": at_least(1)},
}
_LEASE_S = 30.0


def figures_of(contenders: Sequence[Contender], findings: Findings) -> list[Figure]:
    """Make figures of all samples; percentiles of latencies; ratios of penstock to each other on its store."""
    figures: list[Figure] = []
    for one in contenders:
        figures += _measured(one, findings)
        if one.key in findings.kills:
            figures += _killed(one, findings.kills[one.key])
    for store in STORES:
        own = [one for one in contenders if one.store == store and one.name == OWN]
        others = [one for one in contenders if one.store == store and one.name != OWN]
        for one in own:
            figures += _compared(one, others, findings)
    return figures


def _measured(one: Contender, findings: Findings) -> Iterator[Figure]:
    for measure, (title, unit) in _TITLES.items():
        if samples := findings.samples.get((one.key, measure)):
            yield Figure.of(
                f"{one.key}.{measure}",
                f"{one.title} on {one.store}, {title}",
                unit,
                samples,
                goal=_goal(one, measure),
                note=one.note,
            )
    if latencies := findings.samples.get((one.key, "latency")):
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            title = f"{one.title} on {one.store}, idle, enqueue to start, {name}"
            value = percentile(latencies, share)
            yield Figure.of(f"{one.key}.{name}", title, "ms", latencies, value=value, goal=_goal(one, name))


def _killed(one: Contender, killed: Killed) -> Iterator[Figure]:
    own, completed = one.name == OWN, [float(killed.completed)]
    goal = at_least(HELD) if own else None
    yield Figure.of(
        f"{one.key}.completed", f"{one.title} on {one.store}, of {HELD} jobs after a kill", "jobs", completed, goal=goal
    )
    if killed.all_again and killed.again_s:
        goal = at_most(_LEASE_S + 1) if own else None
        title = f"{one.title} on {one.store}, interrupted jobs running again"
        yield Figure.of(f"{one.key}.again", title, "s", killed.again_s, value=killed.again_s[-1], goal=goal)


def _compared(own: Contender, others: Sequence[Contender], findings: Findings) -> Iterator[Figure]:
    for measure, what in (("one", "one by one"), ("drain.1", "drained")):
        mine = findings.samples.get((own.key, measure), [])
        for other in others:
            theirs = findings.samples.get((other.key, measure), [])
            if mine and len(mine) == len(theirs):
                name = f"{measure.partition('.')[0]}_to.{other.name}"
                title = f"penstock to {other.title} on {own.store}, {what}"
                yield Figure.of(f"{own.key}.{name}", title, "ratio", ratios(mine, theirs), goal=_goal(own, name))
    one, two = (findings.samples.get((own.key, f"drain.{processes}"), []) for processes in (1, 2))
    if one and len(one) == len(two):
        name, title = "drain_two_to_one", f"2 processes to 1 on {own.store}, no-ops"
        yield Figure.of(f"{own.key}.{name}", title, "ratio", ratios(two, one), goal=_goal(own, name))


def _goal(one: Contender, measure: str) -> Goal | None:
    return _GOALS[one.store].get(measure) if one.name == OWN else None


def table(store: str, figures: Sequence[Figure], findings: Findings) -> list[list[str]]:
    """Give a row for each contender on a store, quickest drain first within peers; the floor and penstock lead."""
    by_key = {figure.key: figure for figure in figures}
    there = [one for one in CONTENDERS if one.store == store and f"{one.key}.drain.1" in by_key]
    there.sort(key=lambda one: (one.name != BARE, one.name != OWN, -by_key[f"{one.key}.drain.1"].value))
    return [_row(one, by_key, findings.kills.get(one.key)) for one in there]


def _row(one: Contender, figures: Mapping[str, Figure], killed: Killed | None) -> list[str]:
    def value(*names: str) -> str:
        found = [figures.get(f"{one.key}.{name}") for name in names]
        return " / ".join("–" if figure is None else shown(figure.value) for figure in found)

    measured = [value("one"), value("many"), value("drain.1"), value("drain.2")]
    return [one.title, *measured, value("p50", "p99"), value("memory.1", "memory.2"), *_fate(killed)]


def _fate(killed: Killed | None) -> list[str]:
    """Say in two cells what a kill did."""
    if killed is None:
        return ["–", "–"]
    completed = f"{killed.completed} of {HELD}" + (f", {killed.twice} twice" if killed.twice else "")
    if not killed.interrupted:
        return [completed, "none was interrupted"]
    if killed.all_again:
        return [completed, f"{killed.again_s[-1]:.1f} s"]
    if killed.completed == HELD:
        return [completed, "–"]
    back = f"{len(killed.again_s)} of {killed.interrupted}, " if killed.again_s else ""
    return [completed, f"{back}not within {killed.waited_s:.0f} s"]


def document(
    facts: Mapping[str, object], contenders: Sequence[Contender], figures: Sequence[Figure], findings: Findings
) -> dict[str, object]:
    """Give everything that was found out, with the tables as they are shown."""
    stores = [store for store in STORES if any(one.store == store for one in contenders)]
    return {
        **as_document(facts, figures),
        "settings": {one.key: {"title": one.title, "note": one.note} for one in contenders},
        "kills": {key: asdict(killed) for key, killed in findings.kills.items()},
        "failures": findings.failures,
        "columns": list(COLUMNS),
        "tables": {store: table(store, figures, findings) for store in stores},
    }
