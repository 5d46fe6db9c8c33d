"""What the Redis engine does when its server is full, unfit, gone, frozen, restarted or replaced by another."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from penstock.engine import Added, AddRequest, Cancel, Death, Engine, Examination, Kick, Subject, WorkerInfo
from penstock.engines.open import examine, is_there, open_engine
from penstock.engines.redis.engine import RedisEngine
from penstock.engines.redis.errors import Refusal, Translator
from penstock.engines.redis.scripts import scripts_for
from penstock.engines.redis.server import Facts, slot_of
from penstock.model.errors import (
    EngineBusy,
    EngineDown,
    EngineFull,
    EngineReadOnly,
    EngineUnavailable,
    LeaseLost,
    SchemaMismatch,
    StoreInvalid,
)
from penstock.model.job import Claim, Details, JobId, Unique
from penstock.model.outcome import Ending
from penstock.model.states import State
from penstock.testing.clock import TurnedClock
from penstock.testing.conformance.trial import P1, P2, change, new_job, want
from tests.polling import comes_true
from tests.servers.process import free_port
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer, Sentinel

PROMPT_S = 5.0
LASTING = {"appendonly": "yes", "appendfsync": "always", "repl_diskless_sync_delay": 0}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, which survives a restart."""
    server = RedisServer(tmp_path, **LASTING)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def engine(server: RedisServer) -> Iterator[Engine]:
    engine = open_engine(server.url)
    engine.enrol(WorkerInfo(id="w1"), [P1, P2])
    yield engine
    engine.close()


def add(engine: Engine, *ids: str) -> None:
    assert engine.add([AddRequest(tuple(new_job(id) for id in ids))]) == [[Added(JobId(id)) for id in ids]]


def claims(engine: Engine, beat: int) -> tuple[Claim, ...]:
    return engine.exchange(P1, beat, (), want()).claims


def set_config(server: RedisServer, name: str, value: str | int) -> None:
    with server.client() as client:
        client.config_set(name, value)


# -- a server that is not as it should be -----------------------------------------------------------------------------


def test_server_that_may_throw_jobs_away_is_refused_unless_it_is_wanted(server: RedisServer) -> None:
    set_config(server, "maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreInvalid, match="allkeys-lru"):
        add(open_engine(server.url), "a")
    engine = open_engine(f"{server.url}?any_eviction=yes")
    add(engine, "a")
    assert any("allkeys-lru" in note for note in engine.describe().notes)


def test_replica_is_read_only(server: RedisServer) -> None:
    with server.client() as client:
        client.replicaof("127.0.0.1", 1)
    with pytest.raises(EngineReadOnly, match="replica"):
        add(open_engine(f"{server.url}?timeout=200ms"), "a")


def test_wrong_password_is_told_and_not_shown(server: RedisServer) -> None:
    set_config(server, "requirepass", "s3cret")
    host = server.url.removeprefix("redis://")
    with pytest.raises(EngineDown, match="password") as refused:
        add(open_engine(f"redis://:wr0ng@{host}"), "a")
    assert "wr0ng" not in str(refused.value)
    engine = open_engine(f"redis://:s3cret@{host}")
    add(engine, "a")
    assert "s3cret" not in engine.describe().url


def test_store_of_another_schema_is_refused(server: RedisServer, engine: Engine) -> None:
    add(engine, "a")
    with server.client() as client:
        client.hset("{penstock}:meta", "schema", "99")
    with pytest.raises(SchemaMismatch, match="99"):
        open_engine(server.url).counts()


def test_unix_socket_serves_too(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, unixsocket=str(tmp_path / "redis.sock"))
    server.start()
    try:
        engine = open_engine(f"unix://{tmp_path}/redis.sock?db=3")
        add(engine, "a")
        assert engine.describe().url == f"unix://{tmp_path}/redis.sock?db=3"
        assert open_engine(f"{server.url[:-1]}3").get([JobId("a")])[0] is not None
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("settings", "durability"),
    [
        ({"appendonly": "no"}, "D0"),
        ({"appendonly": "yes", "appendfsync": "no"}, "D0"),
        ({"appendonly": "yes", "appendfsync": "everysec"}, "D1"),
        ({"appendonly": "yes", "appendfsync": "always"}, "D2"),
    ],
)
def test_durability_follows_the_live_settings(
    server: RedisServer, engine: Engine, settings: dict[str, str], durability: str
) -> None:
    for name, value in settings.items():
        set_config(server, name, value)
    assert engine.describe().durability == durability


def test_settings_that_are_kept_secret_are_noted(server: RedisServer) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~{penstock}:*", "+@all", "-config")
    engine = open_engine(server.url.replace("redis://", "redis://app:pw@"))
    add(engine, "a")
    info = engine.describe()
    assert info.durability == "D1"
    assert any("does not tell" in note for note in info.notes)


def test_rights_that_are_documented_suffice_and_are_no_more(server: RedisServer) -> None:
    page = (Path(__file__).parents[2] / "docs/explanation/redis.md").read_text(encoding="utf-8")
    [line] = [line for line in page.splitlines() if line.startswith("ACL SETUSER penstock ")]
    with server.client() as client:
        client.execute_command(*line.split())
    engine = open_engine(server.url.replace("redis://", "redis://penstock:password@"))
    engine.enrol(WorkerInfo(id="w1"), [P1])
    add(engine, "a")
    engine.wait(Subject(queues=()), 0, 60)
    [claim] = claims(engine, 1)
    assert engine.exchange(P1, 2, [change(claim)], None).late == ()
    engine.tend(P1)
    assert engine.describe().durability == "D2"
    with redis.Redis(port=server.port, username="penstock", password="password", socket_timeout=5) as client:
        for forbidden in ("FLUSHALL", "FLUSHDB", "KEYS *"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*forbidden.split())


# -- a full server ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(7, 0), (6, 2)])
def test_full_server_refuses_new_jobs_and_lets_all_others_end(
    server: RedisServer, engine: RedisEngine, version: tuple[int, ...]
) -> None:
    add(engine, "a", "b", "c")
    engine._server._scripts = scripts_for(version)  # a server of 7 takes the form for older ones too
    set_config(server, "maxmemory", 1_000_000)
    for keyed in (False, True):
        details = Details(unique=Unique("k")) if keyed else Details()
        with pytest.raises(EngineFull, match="maxmemory"):
            engine.add([AddRequest((new_job(details=details),))])
    first, second, _ = claims(engine, 1)
    assert engine.renew(P1, [P2]).void == ()
    assert engine.tend(P1).taken == ()
    engine.alter([second.id], Cancel())
    answer = engine.exchange(P1, 2, [change(first), change(second, Ending.CANCELLED)], None)
    assert answer.late == ()
    assert engine.alter([second.id], Kick())[0].after is State.READY
    set_config(server, "maxmemory", 0)
    add(engine, "d")


@pytest.mark.parametrize(
    ("code", "kind"),
    [("OOM", EngineFull), ("MISCONF", EngineFull), ("READONLY", EngineReadOnly), ("NOPERM", EngineDown)],
)
def test_refusal_inside_a_script_of_an_older_server_is_understood(code: str, kind: type[EngineUnavailable]) -> None:
    said = f"ERR Error running script (call to f_6b1bf4): @user_script:12: @user_script: 12: -{code} no such thing."
    assert Refusal(said).code == code
    assert type(Translator("redis://here", 5).told(Refusal(said))) is kind


def test_server_that_cannot_write_to_its_disk_can_be_read_by_who_comes_new(
    server: RedisServer, engine: Engine, tmp_path: Path
) -> None:
    add(engine, "a")
    (tmp_path / "dump.rdb" / "in-the-way").mkdir(parents=True)
    set_config(server, "save", "3600 1")
    with server.client() as client:
        client.bgsave()
        assert comes_true(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    fresh = open_engine(server.url)
    with pytest.raises(EngineFull, match="disk"):
        add(fresh, "b")
    assert fresh.get([JobId("a")])[0] is not None
    assert fresh.describe().epoch == engine.describe().epoch


def test_many_jobs_are_altered_in_turns_that_let_others_in(server: RedisServer, engine: Engine) -> None:
    ids = [f"job-{number}" for number in range(1000)]
    add(engine, *ids)
    with server.client() as client:
        client.config_resetstat()
        altered = engine.alter([JobId(id) for id in ids], Cancel())
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert {one.after for one in altered} == {State.CANCELLED}
    assert calls >= 2 * 5


def test_no_call_takes_over_more_than_a_thousand_claims(engine: Engine) -> None:
    for at in range(3):
        add(engine, *(f"job-{at}-{number}" for number in range(500)))
    held = [*claims(engine, 1), *claims(engine, 2)]
    assert len(engine.renew(P2, [], [Death(P1)]).taken) == 1000
    assert engine.counts()[0].states[State.RUNNING] == len(held)
    assert len(engine.tend(P2).taken) == 500


# -- a server that goes and comes -------------------------------------------------------------------------------------


def test_server_that_was_restarted_goes_on_where_it_was(server: RedisServer, engine: Engine) -> None:
    add(engine, "a", "b")
    epoch = engine.describe().epoch
    [claim, _] = claims(engine, 1)
    server.restart()
    assert until_it_answers(engine).epoch == epoch
    assert engine.exchange(P1, 2, [change(claim)], None).late == ()
    assert engine.get([claim.id])[0].state is State.SUCCEEDED  # type: ignore[union-attr]


def test_server_that_was_killed_is_told_of_at_once(server: RedisServer, engine: Engine) -> None:
    server.kill()
    began = time.monotonic()
    with pytest.raises(EngineDown):
        engine.counts()
    with pytest.raises(EngineDown, match="reached"):
        engine.counts()
    assert time.monotonic() - began < PROMPT_S
    server.start()
    add(engine, "a")


def test_frozen_server_is_not_waited_for_beyond_the_deadline(server: RedisServer) -> None:
    engine = open_engine(f"{server.url}?timeout=300ms")
    add(engine, "a")
    server.freeze()
    try:
        with pytest.raises(EngineBusy, match=r"0\.3 s"):
            engine.counts()
    finally:
        server.thaw()
    assert engine.get([JobId("a")])[0] is not None


def test_wait_outlasts_a_server_that_is_gone(server: RedisServer, engine: Engine) -> None:
    mark = engine.exchange(P1, 1, (), None).mark
    server.kill()
    engine.wait(Subject(queues=()), mark, 0.3)
    server.start()
    add(engine, "a")
    engine.wait(Subject(queues=()), mark, 60)


def test_scripts_that_the_server_forgot_are_given_anew(server: RedisServer, engine: Engine) -> None:
    add(engine, "a")
    with server.client() as client:
        client.script_flush()
    add(engine, "b")
    assert len(claims(engine, 1)) == 2


def test_connections_that_the_server_closed_are_not_used(server: RedisServer, engine: Engine) -> None:
    add(engine, "a")
    with server.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(EngineUnavailable):
        engine.counts()
    add(engine, "b")


def test_server_that_closed_idle_connections_is_checked_again(server: RedisServer, engine: RedisEngine) -> None:
    engine.counts()
    with server.client() as client:
        client.hset("{penstock}:meta", "schema", "99")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    for wire in engine._server._free:
        wire._used -= 60
    with pytest.raises(SchemaMismatch, match="99"):
        engine.counts()


def test_lost_reply_of_an_exchange_is_given_again(server: RedisServer, engine: Engine) -> None:
    add(engine, "a", "b")
    with Proxy(server.port) as proxy:
        distant = open_engine(server.url.replace(str(server.port), str(proxy.port)))
        [first, _] = distant.exchange(P1, 1, (), want()).claims
        proxy.lose_reply_to = lambda request: b"EVALSHA" in request
        with pytest.raises(EngineDown):
            distant.exchange(P1, 2, [change(first)], want())
        proxy.lose_reply_to = None
        assert distant.exchange(P1, 2, [change(first)], want()).late == ()
        distant.close()
    assert engine.describe().late_results == 0


def test_engine_is_used_on_both_sides_of_a_fork(engine: Engine) -> None:
    add(engine, "a")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            add(engine, "b")
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    add(engine, "c")
    assert engine.queues()[0].unfinished == 3


# -- a server that lost its last writes -------------------------------------------------------------------------------


def test_jobs_whose_end_the_server_forgot_are_handed_on_as_lost(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, appendonly="yes", appendfsync="always")
    server.start()
    try:
        engine = open_engine(server.url)
        engine.enrol(WorkerInfo(id="w1"), [P1, P2])
        add(engine, "a")
        [claim] = claims(engine, 1)
        sizes = {path: path.stat().st_size for path in tmp_path.rglob("*.aof")}
        assert engine.exchange(P1, 2, [change(claim)], None).late == ()
        server.kill()
        for path, size in sizes.items():
            os.truncate(path, size)
        server.start()
        until_it_answers(engine)
        with pytest.raises(LeaseLost):
            engine.exchange(P1, 3, (), want())
        with pytest.raises(LeaseLost):
            engine.exchange(P1, 4, (), want())
        [taken] = engine.tend(P2).taken
        assert (taken.claim.id, taken.fate, taken.previous) == ("a", "lost", P1)
    finally:
        server.kill()


def test_process_that_another_engine_object_speaks_for_is_believed(server: RedisServer, engine: Engine) -> None:
    add(engine, "a")
    [claim] = claims(engine, 1)
    other = open_engine(server.url)
    assert other.exchange(P1, 2, [change(claim)], None).late == ()


def test_process_that_enrolled_anew_under_its_name_begins_with_its_first_beat(engine: Engine) -> None:
    add(engine, "a", "b")
    [first, _] = claims(engine, 7)
    engine.renew(P2, [], [Death(P1)])
    engine.enrol(WorkerInfo(id="w1"), [P1])
    assert engine.exchange(P1, 1, [change(first)], None).late == (first.id,)


# -- an exchange that comes late --------------------------------------------------------------------------------------


def test_claims_of_an_idle_exchange_that_came_late_are_told_next(server: RedisServer, engine: Engine) -> None:
    assert claims(engine, 3) == ()  # a repeat: the first call is still on its way
    add(engine, "a", "b", "c")
    late = open_engine(server.url)
    assert [claim.id for claim in late.exchange(P1, 3, (), want(limit=2)).claims] == ["a", "b"]
    told = claims(engine, 4)
    assert [claim.id for claim in told] == ["a", "b"]
    assert claims(engine, 4) == told
    answer = engine.exchange(P1, 5, [change(claim) for claim in told], want())
    assert (answer.late, [claim.id for claim in answer.claims]) == ((), ["c"])


def test_connection_that_did_not_answer_is_reset_so_that_nothing_comes_late() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = open_engine(f"redis://127.0.0.1:{silent.getsockname()[1]}/0?timeout=200ms")
        engine._server._is_checked = True  # type: ignore[attr-defined]
        with pytest.raises(EngineBusy):
            engine._server.command("PING")  # type: ignore[attr-defined]
        connection, _ = silent.accept()
        with connection, pytest.raises(ConnectionResetError):
            list(iter(lambda: connection.recv(4096), b""))


# -- waiting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "subject", [Subject(queues=("mine",)), Subject(jobs=(JobId("mine"),))], ids=["work", "results"]
)
def test_wait_hardly_asks_while_the_news_are_those_of_others(
    server: RedisServer, engine: Engine, subject: Subject
) -> None:
    add(engine, "mine")
    mark = engine.exchange(P2, 1, (), None).mark
    with server.client() as client:
        news = "for at = 1, 30000 do redis.call('XADD', KEYS[1], 1000000 + at .. '-0', 'of', 'another') end"
        for kind in ("work", "done"):
            client.eval(news, 1, f"{{penstock}}:news:{kind}")
        client.config_resetstat()
        engine.wait(subject, mark, 0.3)
        told = client.info("commandstats")
    assert told["cmdstat_xread"]["calls"] <= 0.3 / 0.002 + 1
    assert told.get("cmdstat_evalsha", {"calls": 0})["calls"] <= 2


def test_wait_for_a_result_ends_with_it_among_the_ends_of_others(engine: Engine) -> None:
    add(engine, "a", "mine")
    first, mine = claims(engine, 1)
    waits = threading.Thread(target=engine.wait, args=(Subject(jobs=(mine.id,)), 0, 60))
    waits.start()
    engine.exchange(P1, 2, [change(first)], None)
    assert waits.is_alive()
    engine.exchange(P1, 3, [change(mine)], None)
    waits.join(PROMPT_S)
    assert not waits.is_alive()


# -- another server in its place --------------------------------------------------------------------------------------


def test_takeover_by_a_replica_begins_an_epoch_and_voids_the_leases(
    server: RedisServer, engine: Engine, tmp_path: Path
) -> None:
    add(engine, "a")
    [claim] = claims(engine, 1)
    epoch = engine.describe().epoch
    (tmp_path / "heir").mkdir()
    heir = RedisServer(tmp_path / "heir", replicaof=f"127.0.0.1 {server.port}")
    heir.start()
    try:
        with heir.client() as client:
            assert comes_true(lambda: client.info("replication")["master_link_status"] == "up")
            assert comes_true(lambda: bool(client.hget("{penstock}:claims", "a")))
            server.kill()
            client.execute_command("REPLICAOF", "NO", "ONE")
        after = open_engine(heir.url)
        assert after.describe().epoch != epoch
        with pytest.raises(LeaseLost):
            after.exchange(P1, 2, [change(claim)], None)
        after.enrol(WorkerInfo(id="w2"), [new := type(P1)("new")])
        [taken] = after.tend(new).taken
        assert (taken.claim.id, taken.fate, taken.previous) == ("a", "lost", P1)
    finally:
        heir.kill()


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A server that saves snapshots only, and its replica."""
    server = RedisServer(tmp_path, save="3600 1", repl_diskless_sync_delay=0)
    server.start()
    (tmp_path / "replica").mkdir()
    replica = RedisServer(tmp_path / "replica", replicaof=f"127.0.0.1 {server.port}")
    replica.start()
    with replica.client() as client:
        assert comes_true(lambda: client.info("replication")["master_link_status"] == "up")
    yield server, replica
    replica.kill()
    server.kill()


def test_planned_restart_of_a_master_with_a_replica_voids_no_lease(followed: tuple[RedisServer, RedisServer]) -> None:
    server, _ = followed
    engine = open_engine(server.url)
    engine.enrol(WorkerInfo(id="w1"), [P1])
    add(engine, "a")
    [claim] = claims(engine, 1)
    epoch = engine.describe().epoch
    server.restart()
    assert open_engine(server.url).describe().epoch == epoch
    with server.client() as client:
        assert client.info("replication")["second_repl_offset"] > 0, "the test shows nothing"
    assert engine.exchange(P1, 2, [change(claim)], None).late == ()


def save(server: RedisServer) -> None:
    """Write a snapshot as soon as none is being written, as one is for a new replica."""
    with server.client() as client:
        assert comes_true(lambda: client.info("persistence")["rdb_bgsave_in_progress"] == 0)
        client.save()


def test_writes_that_a_master_with_a_replica_lost_in_a_crash_are_noticed(
    followed: tuple[RedisServer, RedisServer],
) -> None:
    server, _ = followed
    engine = open_engine(server.url)
    engine.enrol(WorkerInfo(id="w1"), [P1, P2])
    add(engine, "a")
    [claim] = claims(engine, 1)
    save(server)
    assert engine.exchange(P1, 2, [change(claim)], None).late == ()
    server.restart(gently=False)
    until_it_answers(engine)
    with pytest.raises(LeaseLost):
        engine.exchange(P1, 3, (), want())
    [taken] = engine.tend(P2).taken
    assert (taken.claim.id, taken.fate, taken.previous) == ("a", "lost", P1)


def test_replica_that_has_heard_nothing_since_its_first_copy_is_known_for_one(
    followed: tuple[RedisServer, RedisServer],
) -> None:
    server, replica = followed
    open_engine(server.url).counts()
    with replica.client() as client:
        server.kill()
        client.execute_command("REPLICAOF", "NO", "ONE")
        facts = {name: str(value) for name, value in client.info("everything").items()}
    assert not Facts(facts | {"repl_backlog_first_byte_offset": facts["second_repl_offset"]}).came_back


def test_store_in_a_cluster_lives_in_one_slot(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, cluster_enabled="yes", cluster_port=free_port())
    server.start()
    try:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            assert comes_true(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
            assert client.execute_command("CLUSTER", "KEYSLOT", "{penstock}:jobs") == slot_of(b"{penstock}:jobs")
        engine = open_engine(f"redis+cluster://127.0.0.1:{server.port}")
        engine.enrol(WorkerInfo(id="w1"), [P1])
        add(engine, "a", "b")
        [first, second] = claims(engine, 1)
        assert engine.exchange(P1, 2, [change(first), change(second, Ending.FAILED)], None).late == ()
        assert engine.tend(P1).taken == ()
        engine.wait(Subject(queues=()), 0, 60)
    finally:
        server.kill()


def test_server_is_found_by_its_sentinels(server: RedisServer, tmp_path: Path) -> None:
    sentinel = Sentinel(tmp_path / "sentinel", server)
    sentinel.start()
    try:
        engine = open_engine(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/jobs/2")
        add(engine, "a")
        assert open_engine(f"{server.url[:-1]}2").get([JobId("a")])[0] is not None
        with pytest.raises(EngineDown, match="service"):
            add(open_engine(f"redis+sentinel://127.0.0.1:{sentinel.port}/others"), "b")
    finally:
        sentinel.kill()


def test_sentinel_with_a_password_of_its_own_is_told_it(server: RedisServer, tmp_path: Path) -> None:
    set_config(server, "requirepass", "of-the-server")
    auth = "sentinel auth-pass jobs of-the-server"
    sentinel = Sentinel(tmp_path / "sentinel", server, auth, "requirepass of+the/sentinel")
    sentinel.password = "of+the/sentinel"
    sentinel.start()
    try:
        url = f"redis+sentinel://:of-the-server@127.0.0.1:{sentinel.port}/jobs"
        engine = open_engine(f"{url}?sentinel_password=of%2Bthe/sentinel")
        add(engine, "a")
        assert "sentinel" not in engine.describe().url.rpartition("/jobs")[2]
        for wrong in ("", "?sentinel_password=wr0ng", "?sentinel_password=wr0ng&sentinel_user=app"):
            with pytest.raises(EngineDown, match=r"Sentinel 127.*\?sentinel_password=") as refused:
                open_engine(url + wrong).counts()
            assert "wr0ng" not in str(refused.value)
        assert is_there(f"{url}?sentinel_password=of%2Bthe/sentinel")
        assert "server" not in faults_of(examine(f"{url}?sentinel_password=of%2Bthe/sentinel"))
    finally:
        sentinel.kill()


# -- clocks -----------------------------------------------------------------------------------------------------------


def test_lease_that_a_clock_set_back_made_too_long_is_cut(server: RedisServer, engine: Engine) -> None:
    with server.client() as client:
        client.zincrby("{penstock}:leases", 3_600_000, P2)
        engine.tend(P1)
        left_ms = client.zscore("{penstock}:leases", P2) - time.time() * 1000
    assert left_ms <= 30_000


def test_lease_that_was_given_before_the_clock_was_set_back_is_cut(server: RedisServer, engine: RedisEngine) -> None:
    with server.client() as client:
        client.zincrby("{penstock}:leases", 3_600_000, P2)
    assert engine.workers()[0].lease_left_ms > 3_600_000
    engine.tend(P1)
    assert 0 < engine.workers()[0].lease_left_ms <= 30_000


def test_server_that_shows_a_later_time_than_can_be_is_not_believed(server: RedisServer, engine: RedisEngine) -> None:
    add(engine, "a")
    claims(engine, 1)
    engine.enrol(WorkerInfo(id="w2", lease_ms=60_000), [tender := type(P1)("tender")])
    engine.tend(tender)
    with server.client() as client:
        client.zadd("{penstock}:leases", {P1: 1, P2: 1})
    engine._guard.note(1, time.monotonic())  # as if the server had shown a far earlier time a moment ago
    assert engine.tend(tender).taken == ()
    assert engine.tend(tender).taken == ()


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("redis://{at}/99", "CONFIG GET databases"),
        ("redis://me:secret@{at}/0", "rights of that user"),
        ("redis://:secret@{at}/0", "Leave user and password out"),
        ("redis+sentinel://{at}/shop/0", "It is no Sentinel"),
        ("redis+cluster://{at}", "It is no node of a cluster"),
    ],
)
def test_url_that_does_not_fit_the_server_is_told_with_the_way_out(server: RedisServer, url: str, remedy: str) -> None:
    engine = open_engine(url.format(at=f"127.0.0.1:{server.port}"))
    with pytest.raises(EngineDown, match=remedy) as caught:
        engine.counts()
    assert "secret" not in str(caught.value)


# -- names, and a look from outside -----------------------------------------------------------------------------------


def test_names_may_hold_what_keys_are_made_of(redis_server: RedisServer) -> None:
    engine = open_engine(f"{redis_server.url}?prefix=hostile", clock=TurnedClock())
    odd = "}:{penstock}:*\n\r\0 a:b"
    task = new_job(task=odd, details=Details(unique=Unique(odd), idempotency_key=odd, tags=(odd,)), queue="ended")
    engine.enrol(WorkerInfo(id=odd), [process := type(P1)(odd)])
    [[added]] = engine.add([AddRequest((task,))])
    assert engine.add([AddRequest((task,))]) == [[Added(added.id, existing=True)]]
    [claim] = engine.exchange(process, 1, (), want(tasks={odd: "thread"})).claims
    assert (claim.task, claim.details.unique, claim.envelope) == (odd, Unique(odd), task.envelope)
    assert engine.begin(claim.id, claim.fence, odd, odd, 1000).first
    [view] = engine.workers()
    assert (view.info.id, view.processes, view.running) == (odd, (odd,), 1)
    engine.exchange(process, 2, [change(claim)], None)
    assert [(row.queue, row.task) for row in engine.counts()] == [("ended", odd)]


def test_examination_makes_no_store_and_tells_what_is_amiss(server: RedisServer) -> None:
    assert (is_there(server.url), examine(server.url).exists) == (False, False)
    set_config(server, "maxmemory-policy", "volatile-ttl")
    set_config(server, "appendonly", "no")
    verdicts = verdicts_of(examine(server.url))
    assert (verdicts["eviction"], verdicts["durability"], verdicts["access"]) == ("fault", "warning", "warning")
    set_config(server, "maxmemory-policy", "noeviction")
    add(open_engine(server.url), "a")
    found = examine(server.url)
    assert (is_there(server.url), found.exists, found.schema) == (True, True, found.known_schema)
    server.kill()
    assert verdicts_of(examine(server.url)) == {"server": "fault"}


def faults_of(examination: Examination) -> set[str]:
    return {finding.subject for finding in examination.findings if finding.verdict == "fault"}


@pytest.mark.parametrize(
    ("settings", "verdict", "said"),
    [
        ({"bind": "127.0.0.1 -::1"}, "warning", "bound to 127.0.0.1 ::1"),
        ({"bind": "*"}, "warning", "protected-mode shuts out other hosts"),
        ({"bind": "*", "protected_mode": "no"}, "warning", "other hosts reach it (bind *, protected-mode no)"),
        ({"bind": "*", "protected_mode": "no", "requirepass": "pw"}, "ok", "nothing without a password"),
    ],
)
def test_examination_says_who_reaches_a_server_without_a_password(
    tmp_path: Path, settings: dict[str, str], verdict: str, said: str
) -> None:
    server = RedisServer(tmp_path, **settings)
    server.password = settings.get("requirepass")
    server.start()
    try:
        url = server.url.replace("//", "//:pw@") if "requirepass" in settings else server.url
        [access] = [finding for finding in examine(url).findings if finding.subject == "access"]
        assert (access.verdict, said in access.found) == (verdict, True), access
    finally:
        server.kill()


def test_password_of_one_user_does_not_hide_that_the_default_user_has_none(server: RedisServer) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all")
        url = server.url.replace("//", "//app:pw@")
        assert verdicts_of(examine(url))["access"] == "warning"
        client.execute_command("ACL", "SETUSER", "app", "-config")
        assert verdicts_of(examine(url))["access"] == "warning"
        client.execute_command("ACL", "SETUSER", "default", "off")
    assert verdicts_of(examine(url))["access"] == "ok"


def test_server_that_listens_on_a_socket_only_needs_no_password(tmp_path: Path) -> None:
    class OnSocket(RedisServer):
        def command(self) -> list[str]:
            return [*super().command(), "--port", "0"]

        def client(self) -> "redis.Redis":
            return redis.Redis(unix_socket_path=str(tmp_path / "redis.sock"), socket_timeout=5)

    server = OnSocket(tmp_path, unixsocket=str(tmp_path / "redis.sock"))
    server.start()
    try:
        assert verdicts_of(examine(f"unix://{tmp_path}/redis.sock"))["access"] == "ok"
    finally:
        server.kill()


def verdicts_of(examination: Examination) -> dict[str, str]:
    return {finding.subject: finding.verdict for finding in examination.findings}


def until_it_answers(engine: Engine):  # type: ignore[no-untyped-def]  # whatever describe gives
    """Describe an engine whose connections may all have been closed."""
    deadline = time.monotonic() + PROMPT_S
    while True:
        try:
            return engine.describe()
        except EngineUnavailable:
            assert time.monotonic() < deadline, "the engine does not come back"
