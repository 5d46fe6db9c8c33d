"""What one engine knows of lines and policies, and that it is found again when the server began anew meanwhile."""

from collections.abc import Iterator

import pytest

from penstock.engines.open import open_engine
from penstock.engines.postgres import PostgresEngine
from penstock.engines.postgres.catalog import Catalog, LineKey
from penstock.engines.postgres.store import Store
from penstock.model.job import JobId
from penstock.model.retry import Policy
from penstock.testing.conformance.trial import new_job
from tests.servers.postgres import PostgresServer

ONE, OTHER = (LineKey(queue, "task", "", False, 0) for queue in ("one", "other"))
MILD, STRICT = Policy(max_attempts=7), Policy(max_attempts=2)


@pytest.fixture
def store(postgres_server: PostgresServer) -> Iterator[Store]:
    engine = open_engine(postgres_server.empty_store())
    assert isinstance(engine, PostgresEngine)
    yield engine.store
    engine.close()


@pytest.fixture
def catalog(store: Store) -> Catalog:
    catalog = Catalog(store)
    store.forget = catalog.forget
    return catalog


def begin_anew(store: Store) -> None:
    """Let the next call find another run of the server than the last one: what was known is forgotten in it."""
    store.close()
    store._started = "the run before"


def test_lines_are_told_although_the_server_began_anew(store: Store, catalog: Catalog) -> None:
    [other] = Catalog(store).lines([OTHER])
    [one] = catalog.lines([ONE])
    begin_anew(store)
    assert catalog.line_keys({one, other}) == {one: ONE, other: OTHER}


def test_policies_are_told_although_the_server_began_anew(store: Store, catalog: Catalog) -> None:
    [strict] = Catalog(store).policies_of([new_job(JobId("1"), policy=STRICT)])
    [mild] = catalog.policies_of([new_job(JobId("2"), policy=MILD)])
    catalog.policy_values({mild})
    begin_anew(store)
    assert catalog.policy_values({mild, strict}) == {mild: MILD, strict: STRICT}


def test_lines_are_made_although_the_server_began_anew(store: Store, catalog: Catalog) -> None:
    [one] = catalog.lines([ONE])
    begin_anew(store)
    assert catalog.lines([ONE, OTHER]) == [one, *Catalog(store).lines([OTHER])]


def test_policies_are_made_although_the_server_began_anew(store: Store, catalog: Catalog) -> None:
    [mild] = catalog.policies_of([new_job(JobId("1"), policy=MILD)])
    begin_anew(store)
    both = [new_job(JobId("1"), policy=MILD), new_job(JobId("2"), policy=STRICT)]
    assert catalog.policies_of(both) == [mild, *Catalog(store).policies_of(both[1:])]
