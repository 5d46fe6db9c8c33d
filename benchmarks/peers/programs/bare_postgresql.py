"""The floor on PostgreSQL: psycopg and the least statements that could be correct, with no task, check or lease.

Jobs are deleted and their results stored in one transaction, which a crash undoes; five hundred at a time, with the
statements and the commit in one pipeline. Sources: https://www.postgresql.org/docs/current/sql-select.html (SKIP
LOCKED), https://www.psycopg.org/psycopg3/docs/advanced/pipeline.html.
"""

import os
import sys
from collections.abc import Sequence

import psycopg

from benchmarks.peers.journal import note
from benchmarks.peers.producing import URL

_BATCH = 500
_BODY = "." * 60
_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (id bigint PRIMARY KEY, body text NOT NULL);
CREATE TABLE IF NOT EXISTS results (id bigint PRIMARY KEY, body text NOT NULL)
"""
_ADD = "INSERT INTO jobs VALUES (%s, %s)"
_ADD_MANY = "INSERT INTO jobs SELECT unnest(%s::bigint[]), %s"
_ADD_AND_TELL = "WITH added AS (INSERT INTO jobs VALUES (%s, %s)) SELECT pg_notify('jobs', '')"
_TAKE = """
DELETE FROM jobs WHERE id = ANY (ARRAY(SELECT id FROM jobs ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING id, body
"""
_KEEP = "INSERT INTO results SELECT unnest(%s::bigint[]), '1'"


class Program:
    def prepare(self) -> None:
        self._db = psycopg.connect(os.environ[URL], autocommit=True)
        self._db.execute(_TABLES)

    def enqueue(self, number: int) -> None:
        self._db.execute(_ADD, (number, _BODY))

    def enqueue_awake(self, number: int) -> None:
        """Wake the worker too: asked for where latency is measured."""
        self._db.execute(_ADD_AND_TELL, (number, _BODY))

    def enqueue_many(self, numbers: Sequence[int]) -> None:
        self._db.execute(_ADD_MANY, (list(numbers), _BODY))

    def enqueue_hold(self, number: int) -> None:
        raise NotImplementedError(f"Job {number} would not be run: the floor has one kind of job.")

    def commands(self, processes: int, tuned: bool) -> list[list[str]]:  # noqa: ARG002
        return [[sys.executable, "-m", "benchmarks.peers.programs.bare_postgresql"]] * processes


def run() -> None:
    """Run jobs for ever; the next ones are taken in the round trip that ends the last ones."""
    with psycopg.connect(os.environ[URL], autocommit=True) as db, db.cursor() as cursor:
        db.execute("LISTEN jobs")
        ids: list[int] = []
        while True:
            with db.pipeline():
                if ids:
                    db.execute(_KEEP, (ids,))
                    db.execute("COMMIT")
                db.execute("BEGIN")
                cursor.execute(_TAKE, (_BATCH,))
                ids = [id for id, _ in cursor.fetchall()]
            if not ids:
                db.execute("COMMIT")
                next(db.notifies(timeout=1.0), None)
            for id in ids:
                note(id)


if __name__ == "__main__":
    run()
