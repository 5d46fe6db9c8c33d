"""The watch over one event loop from another thread: whether it answers, who blocks it, who ignores being cancelled."""

import asyncio
import logging
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from penstock.model.durations import spell
from penstock.worker.board import Board
from penstock.worker.execution import Attempt

log = logging.getLogger("penstock.worker")

#: How often a loop that runs jobs is asked to answer, and from when on it counts as blocked.
ASK_EVERY_NS, BLOCKED_NS = 500_000_000, 1_000_000_000
MOST_FRAMES = 20

#: The attempt in each place and the Task that runs it.
Attempts = Sequence[Attempt | None]
Tasks = Sequence["asyncio.Task[None] | None"]


class Vigil:
    """Looks at a loop ten times a second while coroutines run on it.

    While one coroutine blocks the loop, no other can be interrupted. Those whose time runs out meanwhile are not to
    blame: the supervisor is shown that the time of the blocking one is out instead.

    Args:
        first: the place on the board of the first of its attempts.
        ignored_ns: after how long a coroutine that was interrupted at its limit and runs on is looked at.
    """

    def __init__(self, board: Board, first: int, attempts: Attempts, tasks: Tasks, ignored_ns: int) -> None:
        self._board, self._first, self._attempts, self._tasks = board, first, attempts, tasks
        self._ignored_ns = ignored_ns
        self._asked_ns = self._answered_ns = 0
        self._is_blocked = False
        self._shown: set[int] = set()

    def look(self, loop: asyncio.AbstractEventLoop, thread: int, now_ns: int) -> None:
        if not any(self._attempts):
            self._shown.clear()
            return
        if self._asked_ns:
            if now_ns - self._asked_ns > BLOCKED_NS:
                self._look_at_blocked(loop, thread, now_ns)
            return
        self._show_ignorant(now_ns)
        if now_ns - self._answered_ns > ASK_EVERY_NS:
            self._asked_ns = now_ns
            loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        """Called by the loop. Limits that could not be kept count from now on."""
        now_ns = time.monotonic_ns()
        if self._is_blocked:
            for place, attempt in enumerate(self._attempts):
                if attempt is not None and attempt.deadline_ns:
                    self._board.set_deadline(self._first + place, max(attempt.deadline_ns, now_ns))
        self._is_blocked = False
        self._asked_ns, self._answered_ns = 0, now_ns

    def _look_at_blocked(self, loop: asyncio.AbstractEventLoop, thread: int, now_ns: int) -> None:
        task = asyncio.current_task(loop)
        place = next((place for place, one in enumerate(self._tasks) if one is task and task is not None), None)
        if not self._is_blocked:
            self._is_blocked = True
            self._tell(place, thread, now_ns)
        if place is not None:
            self._blame(place, now_ns)

    def _blame(self, place: int, now_ns: int) -> None:
        """Put the overrun limits of other coroutines down to the one that blocks the loop."""
        limits = {
            other: attempt.deadline_ns
            for other, attempt in enumerate(self._attempts)
            if other != place and attempt is not None and 0 < attempt.deadline_ns <= now_ns
        }
        blocker = self._attempts[place]
        if limits and blocker is not None:
            own_ns = blocker.deadline_ns or now_ns
            self._board.set_deadline(self._first + place, min(own_ns, *limits.values()))
            for other in limits:
                self._board.set_deadline(self._first + other, 0)

    def _tell(self, place: int | None, thread: int, now_ns: int) -> None:
        attempt = None if place is None else self._attempts[place]
        frame = sys._current_frames().get(thread)
        log.warning(
            "%s has blocked the event loop of its process for %s, and no other coroutine goes on meanwhile; await what "
            "it waits for, or make it a plain function. It stands here:\n%s",
            "something" if attempt is None else f"job {attempt.claim.id} of task {attempt.claim.task}",
            spell(round((now_ns - self._asked_ns) / 1e9, 1)),
            "".join(traceback.format_stack(frame, MOST_FRAMES)).rstrip("\n"),
        )

    def _show_ignorant(self, now_ns: int) -> None:
        """Write where coroutines stand that run on after they were interrupted; no thread's stack shows it."""
        for attempt, task in zip(self._attempts, self._tasks, strict=True):
            if attempt is None or task is None or attempt.interrupt is None or not attempt.deadline_ns:
                continue
            if now_ns > attempt.deadline_ns + self._ignored_ns and attempt.claim.fence.token not in self._shown:
                self._shown.add(attempt.claim.fence.token)
                lines = "\n".join(reversed(list(_frames(task.get_coro()))))
                self._board.append(f"Coroutine of job {attempt.claim.id} (most recent call first):\n{lines}\n\n")


def _frames(coroutine: Any) -> Iterator[str]:
    """Give the frames of a coroutine that waits and of those that it waits for, but for those of its runner."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None and not frame.f_globals.get("__name__", "").startswith("penstock.worker"):
            yield f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}'
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
