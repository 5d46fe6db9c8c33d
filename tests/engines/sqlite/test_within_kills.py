"""SIGKILL between an order and its job: both are there, or neither is."""

import random
from contextlib import closing
from pathlib import Path

import pytest

from penstock.client import Penstock
from penstock.engine import Filter
from penstock.model.codec import decode_envelope
from penstock.worker.relay import LEASE_MS, carry
from tests.engines.databases import SqliteDatabase, made
from tests.engines.sqlite.children import Child
from tests.engines.sqlite.victims import place_orders, relay_until_killed

KILLS = 15


@pytest.mark.slow
@pytest.mark.parametrize("place", ["store", "outbox"])
def test_killed_callers_leave_no_order_without_its_job(tmp_path: Path, place: str) -> None:
    store, dice = tmp_path / "store.db", random.Random(7)
    with Penstock(f"sqlite:///{store}") as app:
        app.counts()
        database = SqliteDatabase(store if place == "store" else tmp_path / "app.db", "wal")
        outbox = made(database)
        for kill in range(KILLS):
            with Child(place_orders, str(store), str(database.path), kill * 10_000) as child:
                for _ in range(dice.randrange(1, 15)):
                    child.heard()
                child.kill()
        while carry(outbox, app.engine):
            continue
        orders = sorted(id for (id,) in database.execute("SELECT id FROM orders"))
        assert jobs_of(app) == orders
    assert len(orders) > KILLS


def jobs_of(app: Penstock) -> list[int]:
    """Give the order that each job is about."""
    found: list[int] = []
    which = Filter(limit=1000)
    while True:
        page = app.engine.find(which)
        found += [int(bytes(decode_envelope(job.envelope, job.crc).args).strip(b"[]")) for job in page.jobs]
        if page.next is None:
            return sorted(found)
        which = Filter(limit=1000, before=page.next)


@pytest.mark.slow
def test_killed_relays_carry_each_job_once(tmp_path: Path) -> None:
    store, dice = tmp_path / "store.db", random.Random(7)
    database = SqliteDatabase(tmp_path / "app.db", "wal")
    outbox = made(database)
    with Penstock(f"sqlite:///{store}", outbox=database.url) as app:
        with closing(database.connect()) as connection:
            app.using(connection=connection).enqueue("shop.send", 0)
            connection.commit()
            for kill in range(KILLS):
                for number in range(10):
                    app.using(connection=connection).enqueue("shop.send", kill * 10 + number + 1)
                connection.commit()
                with Child(relay_until_killed, str(store), str(database.path)) as child:
                    for _ in range(dice.randrange(1, 6)):
                        child.heard()
                    child.kill()
        database.pass_time(LEASE_MS)
        while carry(outbox, app.engine):
            continue
        assert jobs_of(app) == list(range(KILLS * 10 + 1))
    assert outbox.stand().waiting == outbox.stand().aside == 0
