"""Which jobs a command speaks of: a filter of options, and the pages of the jobs that match it."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
from msgspec.structs import replace

from penstock.engine import MOST_AT_ONCE, Engine, Filter, Page
from penstock.model.states import State

__all__ = ["count_matching", "filtered", "make_filter", "matching"]

F = TypeVar("F", bound=Callable[..., Any])


class _StateChoice(click.Choice):  # type: ignore[type-arg]  # older versions of click know no arguments
    """A choice of states that says which one was meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.choices:
            import difflib

            near = difflib.get_close_matches(str(value), self.choices, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            self.fail(f"{value!r} is no state.{meant} Known: {', '.join(self.choices)}.", param, ctx)
        return value


def filtered(command: F) -> F:
    """Give a command the options that choose jobs: queue, states, task, tag, degraded, text, group."""
    options = (
        click.option("--queue", "-q", metavar="QUEUE", help="Only jobs of this queue."),
        click.option(
            "--state",
            "-s",
            "states",
            multiple=True,
            type=_StateChoice([str(state) for state in State]),
            metavar="STATE",
            help=f"Only jobs in this state: {', '.join(State)}; may be given several times.",
        ),
        click.option("--task", "-t", metavar="TASK", help="Only jobs of this task."),
        click.option("--tag", metavar="TAG", help="Only jobs with this tag."),
        click.option("--degraded", is_flag=True, help="Only jobs whose result was given by a fallback."),
        click.option("--text", metavar="TEXT", help="Only jobs with this text in id, task, arguments or last error."),
        click.option("--group", metavar="GROUP", help="Only buried jobs of this group; see `jobs groups`."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def make_filter(
    queue: str | None,
    states: tuple[str, ...],
    task: str | None,
    tag: str | None,
    degraded: bool,
    text: str | None,
    group: str | None,
) -> Filter:
    """Make a filter of what `filtered` collected."""
    return Filter(
        queue=queue,
        states=frozenset(map(State, states)) if states else None,
        task=task,
        tag=tag,
        degraded=degraded or None,
        text=text,
        group=group,
    )


def matching(engine: Engine, which: Filter, limit: int | None = None) -> Iterator[Page]:
    """Give matching jobs page by page, newest first.

    Jobs that are added meanwhile do not appear, so changing what was found comes to an end.
    """
    left = limit
    before = which.before
    while left is None or left > 0:
        size = MOST_AT_ONCE if left is None else min(left, MOST_AT_ONCE)
        page = engine.find(replace(which, before=before, limit=size))
        yield page
        left = None if left is None else left - len(page.jobs)
        before = page.next
        if before is None:
            return


def count_matching(engine: Engine, which: Filter) -> Counter[State]:
    """Count matching jobs by state; from the store's own counts where the filter allows it."""
    found: Counter[State] = Counter()
    looks_at_each = which.tag is not None or which.text is not None or which.degraded is not None
    if which.group is not None and not looks_at_each and which.queue is which.task is None:
        return _count_group(engine, which.group, which.states)
    if looks_at_each or which.group is not None:
        for page in matching(engine, which):
            found.update(job.state for job in page.jobs)
        return found
    for one in engine.counts():
        if which.queue in (None, one.queue) and which.task in (None, one.task):
            found.update({state: n for state, n in one.states.items() if which.states is None or state in which.states})
    return found


def _count_group(engine: Engine, id: str, states: frozenset[State] | None) -> Counter[State]:
    """Count the jobs of a group, all of which are buried."""
    if states is not None and State.BURIED not in states:
        return Counter()
    return Counter({State.BURIED: sum(group.count for group in engine.groups() if group.id == id)})
