"""`penstock migrate` and `penstock doctor` with an outbox."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Penstock
from penstock.outbox import Fate
from tests.cli.desk import Desk
from tests.engines.databases import SqliteDatabase, made


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def database(tmp_path: Path) -> SqliteDatabase:
    return SqliteDatabase(tmp_path / "app.db")


def findings(desk: Desk, database: SqliteDatabase) -> list[dict[str, Any]]:
    import json

    told = json.loads(desk.run("doctor", "--json", PENSTOCK_OUTBOX=database.url).stdout)
    return [one for one in told["findings"] if one["subject"] == "outbox"]


def put(desk: Desk, database: SqliteDatabase, count: int = 1) -> list[str]:
    app = Penstock(desk.url, outbox=database.url)
    with closing(database.connect()) as connection:
        ids = [app.using(connection=connection).enqueue("shop.send", number).id for number in range(count)]
        connection.commit()
    return ids


def test_migrate_makes_the_table_once(desk: Desk, database: SqliteDatabase) -> None:
    words = {"PENSTOCK_OUTBOX": database.url}
    assert f"{database.url} would get the table penstock_outbox" in desk.done("migrate", "--dry-run", **words)
    assert f"{database.url} got the table penstock_outbox" in desk.done("migrate", **words)
    assert "nothing to do" in desk.done("migrate", **words).splitlines()[-1]
    assert database.execute("SELECT * FROM penstock_outbox") == []


def test_migrate_without_outbox_says_nothing_of_one(desk: Desk) -> None:
    assert "penstock_outbox" not in desk.done("migrate")


def test_doctor_names_a_missing_table(desk: Desk, database: SqliteDatabase) -> None:
    [finding] = findings(desk, database)
    assert finding["verdict"] == "warning"
    assert "penstock migrate" in finding["remedy"]


def test_doctor_tells_how_many_jobs_wait_and_for_how_long(desk: Desk, database: SqliteDatabase) -> None:
    made(database)
    put(desk, database, 2)
    [finding] = findings(desk, database)
    assert (finding["verdict"], "2 jobs to be carried" in finding["found"]) == ("ok", True)
    database.pass_time(120_000)
    [finding] = findings(desk, database)
    assert (finding["verdict"], "the oldest for 2m" in finding["found"]) == ("warning", True)


def test_doctor_shows_what_was_set_aside(desk: Desk, database: SqliteDatabase) -> None:
    outbox = made(database)
    ids = put(desk, database, 7)
    outbox.settle([Fate(entry.number, "UniqueConflict: held") for entry in outbox.take(10, 0)])
    told = findings(desk, database)
    assert [one["verdict"] for one in told] == ["ok", *["warning"] * 6]
    assert told[1]["found"] == f"job {ids[0]} was set aside: UniqueConflict: held"
    assert told[6]["found"] == "2 more jobs set aside"


def test_doctor_tells_of_an_outbox_that_cannot_be_read(desk: Desk, database: SqliteDatabase) -> None:
    database.path.unlink()
    [finding] = findings(desk, database)
    assert finding["verdict"] == "fault"


def test_config_hides_the_password_of_the_outbox(desk: Desk) -> None:
    told = desk.done("config", PENSTOCK_OUTBOX="postgresql://shop:secret@localhost/shop")
    assert "secret" not in told
    assert "postgresql://shop:***@localhost/shop" in told


def test_setting_that_names_no_outbox_is_refused(desk: Desk) -> None:
    result = desk.run("config", PENSTOCK_OUTBOX="redis://localhost")
    assert result.exit_code != 0
    assert "names no database for an outbox" in result.output
