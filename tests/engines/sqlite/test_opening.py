"""What may stand where the file should be, and what becomes of it."""

import ctypes
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from penstock.engines.sqlite import SqliteEngine
from penstock.engines.sqlite.schema import APPLICATION_ID, schema_version
from penstock.model.errors import (
    EngineReadOnly,
    EngineUnavailable,
    LeaseLost,
    SchemaMismatch,
    StoreCorrupt,
    StoreInvalid,
)
from penstock.model.job import Details
from penstock.testing.conformance.trial import change, want
from tests.engines.sqlite.children import Child, tell, wait_for_parent
from tests.engines.sqlite.jobs import P1, add_one, assert_sound, enrol, is_stored, opened, run_all, stored_ids
from tests.worker.harness import open_files


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def foreign_database(path: Path, journal: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA journal_mode = {journal}")
        db.execute("CREATE TABLE recipes (name)")
        db.execute("INSERT INTO recipes VALUES ('bread')")


class TestNewFile:
    def test_file_and_folder_are_for_their_owner_alone_whatever_the_umask(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        before = os.umask(0)
        try:
            engine = opened(path)
            enrol(engine)
            add_one(engine)
            engine.tend(enrol(engine))
            found = {p.relative_to(tmp_path).name: p.stat().st_mode & 0o7777 for p in tmp_path.rglob("*")}
        finally:
            os.umask(before)
        engine.close()
        assert found.pop("store.db-penstock") == 0o700
        assert {"store.db", "store.db-wal", "store.db-shm", "turn", "gate", "work", "ballast"} <= set(found)
        assert set(found.values()) == {0o600}

    def test_locks_that_cannot_be_made_leave_no_file_open(self, tmp_path: Path) -> None:
        (tmp_path / "store.db-penstock" / "gate").mkdir(parents=True)
        engine = opened(tmp_path / "store.db")
        before = open_files()
        for _ in range(3):
            with pytest.raises(EngineUnavailable):
                add_one(engine)
        assert open_files() == before

    def test_empty_file_becomes_a_store(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        path.touch()
        engine = opened(path)
        assert is_stored(engine, add_one(engine))

    @pytest.mark.parametrize("name", ["größe ☂.db", "a b?mode=ro#x.db", "50%25.db"])
    def test_path_is_taken_as_it_is(self, tmp_path: Path, name: str) -> None:
        engine = opened(tmp_path / name)
        add_one(engine)
        engine.close()
        assert {entry.name for entry in tmp_path.iterdir()} == {name, f"{name}-penstock"}

    def test_processes_that_open_a_new_file_at_once_share_it(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        children = [Child(add_at_a_sign, str(path), f"job-{number}") for number in range(4)]
        for child in children:
            child.heard()
        for child in children:
            child.go_on()
        for child in children:
            assert child.heard() == "stored"
            child.finish()
            child.kill()
        assert stored_ids(opened(path)) == {f"job-{number}" for number in range(4)}

    def test_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(EngineReadOnly, match=r"no/store\.db.*folder must exist"):
            opened(tmp_path / "no" / "store.db").counts()
        assert list(tmp_path.iterdir()) == []

    def test_folder_is_no_store(self, tmp_path: Path) -> None:
        (tmp_path / "store").mkdir()
        with pytest.raises(StoreInvalid, match=r"store is a folder.*store/penstock\.db"):
            add_one(opened(tmp_path / "store"))
        assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


class TestForeignFile:
    @pytest.mark.parametrize(
        "content", [b"x", b"hello\n" * 20, b"\0" * 512, os.urandom(5000), b"SQLite format 3\0" + os.urandom(4080)]
    )
    def test_file_that_is_no_database_is_refused_and_left_alone(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "notes.txt"
        path.write_bytes(content)
        for use in (add_one, SqliteEngine.counts):
            with pytest.raises(StoreInvalid, match=r"notes\.txt is not an SQLite database.*another path"):
                use(opened(path))
        assert contents(tmp_path) == {"notes.txt": content}

    @pytest.mark.parametrize("journal", ["DELETE", "WAL"])
    def test_database_of_another_program_is_refused_and_left_alone(self, tmp_path: Path, journal: str) -> None:
        path = tmp_path / "recipes.db"
        foreign_database(path, journal)
        before = contents(tmp_path)
        for use in (add_one, SqliteEngine.counts):
            with pytest.raises(StoreInvalid, match=r"recipes\.db is an SQLite database of another program"):
                use(opened(path))
        assert contents(tmp_path) == before
        assert list(tmp_path.iterdir()) == [path]

    def test_database_that_another_program_has_open_is_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "recipes.db"
        foreign_database(path, "WAL")
        with closing(sqlite3.connect(path)) as db:
            db.execute("INSERT INTO recipes VALUES ('soup')")
            db.commit()
            before = contents(tmp_path)
            with pytest.raises(StoreInvalid):
                add_one(opened(path))
            del before["recipes.db-shm"]
            assert before.items() <= contents(tmp_path).items()


class TestSchema:
    def test_newer_schema_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        opened(path).counts()
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {schema_version() + 1}")
        before = path.read_bytes()
        for use in (add_one, SqliteEngine.counts):
            with pytest.raises(SchemaMismatch, match=r"store\.db has schema .* newer penstock.*Upgrade") as refused:
                use(opened(path))
        assert (refused.value.found, refused.value.known) == (schema_version() + 1, schema_version())
        assert path.read_bytes() == before

    def test_store_without_tables_yet_is_brought_up_to_date(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute("PRAGMA journal_mode = WAL")
        engine = opened(path)
        assert is_stored(engine, add_one(engine))
        assert engine.describe().schema == schema_version()

    def test_migration_that_is_killed_half_way_leaves_nothing_of_it(self, tmp_path: Path) -> None:
        """SIGKILL before statement after statement; the next to open the file brings it up to date."""
        for statements in (1, 17, 40):
            path = tmp_path / f"store-{statements}.db"
            with Child(die_while_migrating, str(path), statements) as child:
                child.heard()
                child.kill()
            with closing(sqlite3.connect(path)) as db:
                assert db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            engine = opened(path)
            add_one(engine)
            engine.close()
            assert_sound(path)


class TestReadOnly:
    """A child shows what permissions do, because they do not bind root."""

    def test_folder_that_may_not_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "sealed").mkdir(mode=0o555)
        assert told_by(refuse_to_add, tmp_path / "sealed" / "store.db") == ["EngineReadOnly", True]
        assert list((tmp_path / "sealed").iterdir()) == []

    @pytest.mark.parametrize("what", ["file", "folder"])
    def test_store_that_may_not_be_written_can_be_read(self, tmp_path: Path, what: str) -> None:
        path = tmp_path / "store.db"
        keeper = opened(path)
        id = add_one(keeper)
        seal(tmp_path, what)
        try:
            assert told_by(read_what_may_not_be_written, path, id) == [True, "EngineReadOnly", True]
        finally:
            unseal(tmp_path)
        assert told_by(add_another, path) == "stored"
        keeper.close()


class TestInUse:
    def test_removed_file_is_noticed_by_the_next_call(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        engine = opened(path)
        add_one(engine, "old")
        engine.counts()
        path.unlink()
        for use in (add_one, SqliteEngine.counts):
            with pytest.raises(EngineUnavailable, match="replaced or removed while in use"):
                use(engine)
        add_one(engine, "new")
        assert stored_ids(engine) == {"new"}
        engine.close()
        assert_sound(path)

    @pytest.mark.parametrize("written", [1, 300])
    def test_replaced_file_is_noticed_and_not_mixed_with_the_old_one(self, tmp_path: Path, written: int) -> None:
        other, path = tmp_path / "other.db", tmp_path / "store.db"
        replacement = opened(other)
        for number in range(5):
            add_one(replacement, f"of the other {number}")
        replacement.close()
        engine = opened(path)
        for number in range(written):
            add_one(engine, f"old-{number}", queue=f"q{number % 7}")
        engine.counts()
        os.replace(other, path)
        for use in (add_one, SqliteEngine.counts):
            with pytest.raises(EngineUnavailable, match="replaced or removed while in use"):
                use(engine)
        add_one(engine, "new")
        assert stored_ids(engine) == {*(f"of the other {number}" for number in range(5)), "new"}
        engine.close()
        assert_sound(path)

    def test_removed_log_is_noticed_by_the_next_call(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        engine = opened(path)
        add_one(engine, "before")
        (tmp_path / "store.db-wal").unlink()
        with pytest.raises(EngineUnavailable, match="its log was replaced or removed"):
            add_one(engine, "refused")
        add_one(engine, "after")
        assert stored_ids(engine) == {"before", "after"}
        engine.close()
        assert_sound(path)


class TestDamage:
    def test_damaged_pages_are_reported_and_not_repaired(self, tmp_path: Path) -> None:
        """Each page in turn is overwritten; what an engine then says is the truth, or that the file is damaged."""
        original = tmp_path / "original.db"
        engine = opened(original)
        enrol(engine)
        for number in range(40):
            add_one(
                engine,
                f"job-{number:02}",
                queue=f"q{number % 3}",
                args=f'["{"x" * 600}"]',
                details=Details(tags=("red",)),
            )
        engine.exchange(enrol(engine), 1, (), None)
        engine.close()
        clean = original.read_bytes()
        pages = range(1, len(clean) // 4096)
        reports = [
            says_damaged(damaged_copy(clean, page, tmp_path / f"{page}-{use.__name__}.db"), use)
            for page in pages
            for use in (look_at_all, work_off)
        ]
        assert sum(reports) > len(pages)

    def test_damage_stays_as_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        engine = opened(path)
        for _ in range(40):
            add_one(engine, args=f'["{"x" * 600}"]')
        engine.close()
        content = bytearray(path.read_bytes())
        content[4096 * 2 :] = os.urandom(len(content) - 4096 * 2)
        path.write_bytes(content)
        for _ in range(2):
            with pytest.raises(StoreCorrupt, match=r"store\.db is damaged.*restore a backup"):
                add_one(opened(path))
        assert path.read_bytes() == bytes(content)

    def test_truncated_file_is_reported(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        engine = opened(path)
        for _ in range(40):
            add_one(engine, args=f'["{"x" * 600}"]')
        engine.close()
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(StoreCorrupt):
            stored_ids(opened(path))

    def test_envelope_whose_checksum_does_not_match_is_handed_out_as_it_is(self, tmp_path: Path) -> None:
        """Only who decodes it judges it; the store must not change what it was given."""
        engine = opened(tmp_path / "store.db")
        process = enrol(engine)
        id = add_one(engine, crc=0xDEADBEEF)
        [job] = engine.get([id])
        assert run_all(engine, process) == 1
        [ended] = engine.get([id])
        assert job is not None
        assert ended is not None
        assert (ended.crc, ended.envelope) == (job.crc, job.envelope) == (0xDEADBEEF, ended.envelope)


def damaged_copy(clean: bytes, page: int, path: Path) -> Path:
    content = bytearray(clean)
    content[page * 4096 : page * 4096 + 4096] = bytes(byte ^ 0x55 for byte in clean[page * 4096 : page * 4096 + 4096])
    path.write_bytes(content)
    return path


def says_damaged(path: Path, use: Callable[[SqliteEngine], object]) -> bool:
    engine = opened(path)
    try:
        use(engine)
    except StoreCorrupt:
        return True
    finally:
        engine.close()
    return False


def look_at_all(engine: SqliteEngine) -> None:
    assert len(stored_ids(engine)) <= 40
    engine.queues()
    engine.workers()
    engine.describe()


def work_off(engine: SqliteEngine) -> None:
    run_all(engine, enrol(engine, "p2"))


# -- children ---------------------------------------------------------------------------------------------------------


def add_at_a_sign(path: str, id: str) -> None:
    engine = opened(path)
    tell("here")
    wait_for_parent()
    add_one(engine, id)
    tell("stored")


def die_while_migrating(path: str, statements: int) -> None:
    """Stand still before a statement of the migration, as a process that is about to be killed there."""
    seen = 0

    def trace(statement: str) -> None:
        nonlocal seen
        seen += statement.startswith(("CREATE", "INSERT"))
        if seen == statements or statement.startswith("COMMIT"):
            tell(seen)
            wait_for_parent()

    connect = sqlite3.connect

    def connect_and_trace(*arguments: object, **options: object) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*arguments, **options)  # type: ignore[call-overload]
        db.set_trace_callback(trace)
        return db

    sqlite3.connect = connect_and_trace  # type: ignore[assignment]
    opened(path).counts()


def told_by(function: Callable[..., None], *arguments: object) -> object:
    with Child(function, *(str(argument) for argument in arguments)) as child:
        return child.heard()


def let_permissions_bind() -> None:
    """Give up what lets root pass over permissions; what it owns, it still may only use as its mode says.

    Source: capset(2); a header of version 3 for this process, and no capability in any set.
    """
    if os.geteuid() == 0:
        header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, nothing) == 0


def seal(folder: Path, what: str) -> None:
    if what == "file":
        for suffix in ("", "-wal", "-shm"):
            (folder / f"store.db{suffix}").chmod(0o400)
    else:
        (folder / "store.db-penstock").chmod(0o500)
        for name in ("turn", "gate"):
            (folder / "store.db-penstock" / name).chmod(0o400)


def unseal(folder: Path) -> None:
    for entry in folder.rglob("*"):
        entry.chmod(0o700 if entry.is_dir() else 0o600)


def refuse_to_add(path: str) -> None:
    let_permissions_bind()
    try:
        add_one(opened(path))
    except EngineUnavailable as error:
        tell([type(error).__name__, path in str(error)])


def read_what_may_not_be_written(path: str, id: str) -> None:
    let_permissions_bind()
    engine = opened(path)
    seen = is_stored(engine, id)
    try:
        add_one(engine)
    except EngineUnavailable as error:
        tell([seen, type(error).__name__, is_stored(engine, id)])


def add_another(path: str) -> None:
    let_permissions_bind()
    add_one(opened(path), "another")
    tell("stored")


class TestCopies:
    """A copy is another store: what runs on the original holds nothing in it."""

    def test_copy_begins_a_new_epoch_and_hands_its_running_jobs_on(self, tmp_path: Path) -> None:
        original = opened(tmp_path / "original.db")
        enrol(original)
        id = add_one(original)
        [claim] = original.exchange(P1, 1, [], want()).claims
        with (
            closing(sqlite3.connect(tmp_path / "original.db")) as db,
            closing(sqlite3.connect(tmp_path / "copy.db")) as target,
        ):
            db.backup(target)

        copy = opened(tmp_path / "copy.db")
        assert copy.describe().epoch != original.describe().epoch
        with pytest.raises(LeaseLost):
            copy.exchange(P1, 2, [change(claim)], None)
        [taken] = copy.tend(enrol(copy, "tender")).taken
        assert (taken.claim.id, taken.fate) == (id, "lost")
        assert original.exchange(P1, 2, [change(claim)], None).late == ()

    def test_reopening_keeps_the_epoch(self, tmp_path: Path) -> None:
        engine = opened(tmp_path / "store.db")
        epoch = engine.describe().epoch
        engine.close()
        assert engine.describe().epoch == opened(tmp_path / "store.db").describe().epoch == epoch

    def test_copy_that_lost_its_log_mode_gets_it_back(self, tmp_path: Path) -> None:
        add_one(opened(tmp_path / "original.db"))
        with closing(sqlite3.connect(tmp_path / "original.db")) as db:
            db.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
        add_one(opened(tmp_path / "copy.db"))
        with closing(sqlite3.connect(tmp_path / "copy.db")) as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
