"""An application's way to its store: settings, an engine opened when it is needed, and what shares its calls."""

import os
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from penstock.context import running, shielded
from penstock.engine import MOST_AT_ONCE, Added, AddRequest, Engine
from penstock.engines.open import open_engine, open_outbox, without_password
from penstock.handle import Watch
from penstock.intake import Intake
from penstock.model.errors import SettingsInvalid
from penstock.model.job import NewJob
from penstock.outbox import Outbox
from penstock.settings import Settings, find_file, load
from penstock.shield import Shielded

__all__ = ["Access"]


class Access:
    """The store of one application.

    Nothing is read or opened before it is needed. Thread-safe; a forked child opens the store anew.

    Args:
        engine: an open engine to use instead of a URL.
        options: of the settings, by name; None for what was not given.

    Raises:
        SettingsInvalid: an option cannot be used.
    """

    def __init__(self, engine: Engine | None, options: dict[str, object]) -> None:
        _refuse_url(engine)
        load(options, {}, None)
        self._options = options
        self._settings: Settings | None = None
        self._given_engine = None if engine is None else Shielded(engine)
        self._begin()
        _begin_again_after_fork(self)

    def _begin(self) -> None:
        self._opening = threading.RLock()
        self._engine: Engine | None = self._given_engine
        self._outbox: Outbox | None = None
        self._intake = Intake(lambda: self.engine)
        self._watch = Watch(lambda: self.engine)

    @property
    def settings(self) -> Settings:
        """What was said here, in the environment, and in the settings file; read once."""
        found = self._settings
        if found is None:
            with shielded(), self._opening:
                found = self._settings or load(self._options, os.environ, find_file())
                self._settings = found
        return found

    @property
    def max_payload(self) -> int:
        """The most bytes that an envelope or a result may have."""
        return (self._settings or self.settings).max_payload

    @property
    def engine(self) -> Engine:
        """The store, opened when it is first needed."""
        found = self._engine
        if found is None:
            with shielded(), self._opening:
                if self._engine is None:
                    self._engine = Shielded(open_engine(self.settings.url))
                found = self._engine
        return found

    @property
    def outbox(self) -> Outbox | None:
        """The table of the user's database that takes what is enqueued in its transactions, None if there is none."""
        url = self.settings.outbox
        if self._outbox is None and url is not None:
            self._outbox = open_outbox(url)
        return self._outbox

    @property
    def watch(self) -> Watch:
        """What waits for the jobs of this application's coroutines."""
        return self._watch

    def redirect(self, url: str) -> None:
        """Use another store from now on; what a worker does that was given a URL of its own."""
        self.close()
        with self._opening:
            self._options["url"] = url
            self._settings = self._engine = self._given_engine = self._outbox = None

    def close(self) -> None:
        """Let go of the store; the next call opens it again."""
        self._intake.close()
        with self._opening:
            engine, self._engine = self._engine, self._given_engine
            outbox, self._outbox = self._outbox, None
        if engine is not None:
            engine.close()
        if outbox is not None:
            outbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def store(self, jobs: Sequence[NewJob], connection: Any = None) -> list[Added]:
        """Store jobs; each 1,000 whole or not at all. Within a job, they are stored in its name.

        Raises:
            LeaseLost: the job in whose name they are stored was handed on.
        """
        added: list[Added] = []
        for request in self._requests(jobs):
            if connection is None:
                added += self._intake.add(request)
            else:
                added += self._add_within(connection, request)
        return added

    def _add_within(self, connection: Any, request: AddRequest) -> list[Added]:
        """Write jobs in the caller's transaction: into the outbox if there is one, else into the store."""
        outbox = self.outbox
        if outbox is None:
            return _opened(self.engine.add_within(connection, [request])[0])
        with shielded():
            outbox.put(connection, request.jobs, self.engine.capabilities)
        return [Added(job.id) for job in request.jobs]

    async def astore(self, jobs: Sequence[NewJob], connection: Any = None) -> list[Added]:
        """Do `store` without blocking the event loop. A connection stays in its thread and may block."""
        if connection is not None:
            return self.store(jobs, connection)
        added: list[Added] = []
        for request in self._requests(jobs):
            added += await self._intake.aadd(request)
        return added

    def _requests(self, jobs: Sequence[NewJob]) -> list[AddRequest]:
        context = running()
        parent = None
        if context is not None and context.home is self:
            parent = (context.claim.id, context.claim.fence)
        if len(jobs) <= MOST_AT_ONCE:
            return [AddRequest(tuple(jobs), parent)] if jobs else []
        starts = range(0, len(jobs), MOST_AT_ONCE)
        return [AddRequest(tuple(jobs[start : start + MOST_AT_ONCE]), parent) for start in starts]


def _refuse_url(engine: object) -> None:
    if isinstance(engine, str):
        shown = without_password(engine)
        raise SettingsInvalid([f"engine = {shown!r} (argument) is no open engine; give a URL as Penstock({shown!r})."])


def _opened(answer: list[Added] | Exception) -> list[Added]:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _begin_again_after_fork(access: Access) -> None:
    """A connection, a lock or a thread of the parent is of no use in a forked child, and may do harm there."""
    reference = weakref.ref(access)
    inherited: list[Any] = []

    def begin_again() -> None:
        owner = reference()
        if owner is not None:
            # Kept, so that nothing closes the parent's connections from here.
            inherited.append((owner._engine, owner._intake, owner._watch))
            owner._begin()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=begin_again)
