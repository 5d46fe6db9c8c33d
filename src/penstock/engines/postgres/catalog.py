"""Numbers of lines and policies, as one engine knows them."""

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import msgspec

from penstock.engines.forms import policy_in
from penstock.engines.postgres import wire
from penstock.engines.postgres.store import Session, Store
from penstock.model.errors import StoreCorrupt
from penstock.model.job import Job, NewJob
from penstock.model.retry import Policy


class LineKey(NamedTuple):
    """What makes jobs eligible together and equal in priority; rank is the negated priority."""

    queue: str
    task: str
    fair_key: str
    alone: bool
    rank: int


_T = TypeVar("_T")


class Catalog:
    """Looks lines and policies up once; they are never changed, and within an epoch no number is given again.

    What is known may be forgotten at any time, also by the very call that looks the rest up: its connection may be the
    first to a server that began anew. So answers are put together apart from what is known.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: dict[LineKey, int] = {}
        self._line_keys: dict[int, LineKey] = {}
        self._policies: dict[Policy, int] = {}
        self._policy_values: dict[int, Policy] = {}

    def forget(self) -> None:
        """Look everything up again: the store has become another one."""
        for known in (self._lines, self._line_keys, self._policies, self._policy_values):
            known.clear()

    def lines_of(self, jobs: Iterable[NewJob]) -> list[int]:
        """Give the lines of new jobs, made where they are missing."""
        return self.lines([LineKey(job.queue, job.task, job.fair_key, False, -job.priority) for job in jobs])

    def lines(self, keys: list[LineKey]) -> list[int]:
        """Give the numbers of lines, made where they are missing."""
        known = self._lines
        while True:
            try:
                return [known[key] for key in keys]
            except KeyError:
                self._make_lines(list(dict.fromkeys(key for key in keys if key not in known)))

    def line(self, key: LineKey) -> int:
        return self.lines([key])[0]

    def line_keys(self, numbers: set[int]) -> dict[int, LineKey]:
        """Give what lines stand for."""
        found = _known_of(numbers, self._line_keys)
        missing = numbers - found.keys()
        if missing:
            rows = self._store.rows("line_keys", wire.ints(list(missing)))
            told = {row[0]: LineKey(*row[1:]) for row in rows}  # drafts of lines, it may be, so no numbers for keys
            self._line_keys.update(told)
            found.update(told)
            if numbers - found.keys():
                raise StoreCorrupt(f"The store has jobs in lines {numbers - found.keys()}, which it does not know.")
        return found

    def policies_of(self, jobs: Iterable[NewJob | Job]) -> list[int]:
        """Give the numbers of the policies of jobs, made where they are missing."""
        values = [job.policy for job in jobs]
        known = self._policies
        while True:
            try:
                return [known[value] for value in values]
            except KeyError:
                for value in dict.fromkeys(values):
                    if value not in known:
                        self._make_policy(value)

    def policy_values(self, numbers: set[int]) -> dict[int, Policy]:
        """Give policies by their numbers."""
        found = _known_of(numbers, self._policy_values)
        missing = numbers - found.keys()
        if missing:
            rows = self._store.rows("policy_bodies", wire.ints(list(missing)))
            told = {number: policy_in(body) for number, body in rows}
            self._policy_values.update(told)
            found.update(told)
            if numbers - found.keys():
                raise StoreCorrupt(
                    f"The store has jobs with policies {numbers - found.keys()}, which it does not know."
                )
        return found

    def _make_lines(self, keys: list[LineKey]) -> None:
        values = (
            wire.texts([key.queue for key in keys]),
            wire.texts([key.task for key in keys]),
            wire.texts([key.fair_key for key in keys]),
            wire.bools([key.alone for key in keys]),
            wire.ints([key.rank for key in keys]),
        )

        def make(session: Session) -> list[int]:
            session.rows("commit_surely")
            session.do("make_lines", *values)
            return [row[0] for row in session.rows("find_lines", *values)]

        for number, key in zip(self._store.step(make), keys, strict=True):
            self._lines[key], self._line_keys[number] = number, key

    def _make_policy(self, value: Policy) -> None:
        body = msgspec.json.encode(value)

        def make(session: Session) -> int:
            session.rows("commit_surely")
            session.do("make_policy", value.keep_ms, body)
            return int(session.value("policy_of", body))

        number = self._store.step(make)
        self._policies[value], self._policy_values[number] = number, value


def _known_of(numbers: set[int], known: dict[int, _T]) -> dict[int, _T]:
    return {number: value for number in numbers if (value := known.get(number)) is not None}
