"""The Redis engine on several servers: a cluster of three, and a master whose place its replica takes under load."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from penstock.client import Penstock
from penstock.engine import Added, AddRequest, Engine, WorkerInfo
from penstock.engines.open import examine, open_engine
from penstock.engines.redis.server import slot_of
from penstock.model.errors import EngineFull, EngineUnavailable
from penstock.model.job import JobId
from penstock.model.states import State
from penstock.testing.conformance.trial import P1, change, new_job, want
from tests.cli.desk import working
from tests.polling import comes_true
from tests.servers.process import free_port
from tests.servers.redis import RedisServer, Sentinel

PROMPT_S = 20.0
SLOT = slot_of(b"{penstock}:")


def add(engine: Engine, *ids: str) -> None:
    assert engine.add([AddRequest(tuple(new_job(id) for id in ids))]) == [[Added(JobId(id)) for id in ids]]


# -- a cluster --------------------------------------------------------------------------------------------------------


class Cluster:
    """Three nodes, each with a third of the slots."""

    def __init__(self, folder: Path) -> None:
        self.nodes = []
        for number in range(3):
            (folder / str(number)).mkdir()
            settings = {"cluster_enabled": "yes", "cluster_port": free_port(), "cluster_node_timeout": 2000}
            self.nodes.append(RedisServer(folder / str(number), **settings))

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        first = self.nodes[0]
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * 5462, min(number * 5462 + 5461, 16383))
                bus = first.settings["cluster-port"]
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, bus)
        assert comes_true(lambda: all(self._is_whole(node) for node in self.nodes))

    def _is_whole(self, node: RedisServer) -> bool:
        with node.client() as client:
            told = client.execute_command("CLUSTER", "INFO")
        return b"cluster_state:ok" in told and b"cluster_known_nodes:3" in told and b"cluster_size:3" in told

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()

    @property
    def holder(self) -> RedisServer:
        """The node that holds the slot of the store."""
        return self.nodes[SLOT // 5462]

    @property
    def other(self) -> RedisServer:
        return self.nodes[(SLOT // 5462 + 1) % 3]

    def url_by(self, node: RedisServer) -> str:
        return f"redis+cluster://127.0.0.1:{node.port}"

    def move_the_slot(self) -> None:
        """Move the slot with all its keys from its holder to the other node, as `redis-cli --cluster reshard` does."""
        with self.holder.client() as source, self.other.client() as target:
            ids = [client.execute_command("CLUSTER", "MYID").decode() for client in (source, target)]
            target.execute_command("CLUSTER", "SETSLOT", SLOT, "IMPORTING", ids[0])
            source.execute_command("CLUSTER", "SETSLOT", SLOT, "MIGRATING", ids[1])
            while keys := source.execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 3):
                source.execute_command("MIGRATE", "127.0.0.1", self.other.port, "", 0, 5000, "KEYS", *keys)
            for client in (target, source):
                client.execute_command("CLUSTER", "SETSLOT", SLOT, "NODE", ids[1])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def test_store_is_found_in_a_cluster_through_any_of_its_nodes(cluster: Cluster) -> None:
    for number, node in enumerate(cluster.nodes):
        add(open_engine(cluster.url_by(node)), f"job-{number}")
    engine = open_engine(f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster.other.port}")
    assert [row.states for row in engine.counts()] == [{State.READY: 3}]
    with cluster.holder.client() as client:
        assert client.exists("{penstock}:jobs")
    assert examine(cluster.url_by(cluster.other)).exists


def test_work_goes_on_while_the_slot_moves_to_another_node(cluster: Cluster) -> None:
    engine = open_engine(cluster.url_by(cluster.nodes[0]))
    engine.enrol(WorkerInfo(id="w1"), [P1])
    add(engine, "held", "waiting")
    [claim] = engine.exchange(P1, 1, (), want(limit=1)).claims
    epoch = engine.describe().epoch
    moves = threading.Thread(target=cluster.move_the_slot)
    moves.start()
    number = 0
    while moves.is_alive():
        number += 1
        add(engine, f"meanwhile-{number}")
    moves.join()
    add(engine, "after")
    with cluster.other.client() as client:
        assert client.hlen("{penstock}:jobs") == number + 3
    assert engine.exchange(P1, 2, [change(claim)], None).late == ()
    assert engine.describe().epoch == epoch


def test_node_that_is_gone_is_told_in_time_and_waited_for(cluster: Cluster) -> None:
    engine = open_engine(f"{cluster.url_by(cluster.other)}?timeout=1s")
    add(engine, "a")
    cluster.holder.kill()
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(EngineUnavailable):
            engine.counts()
    assert time.monotonic() - began < 3 * 1.5
    cluster.holder.start()

    def answers() -> bool:
        try:
            return engine.counts() == []  # it saved nothing
        except EngineUnavailable:
            return False

    assert comes_true(answers)


# -- a failover under load --------------------------------------------------------------------------------------------


class Service:
    """A master and a replica that a Sentinel watches."""

    def __init__(self, folder: Path) -> None:
        for name in ("master", "replica"):
            (folder / name).mkdir()
        lasting = {"appendonly": "yes", "repl_diskless_sync_delay": 0}
        self.master = RedisServer(folder / "master", **lasting)
        self.replica = RedisServer(folder / "replica", replicaof=f"127.0.0.1 {self.master.port}", **lasting)
        self.sentinel = Sentinel(
            folder / "sentinel",
            self.master,
            "sentinel down-after-milliseconds jobs 1000",
            "sentinel failover-timeout jobs 5000",
        )
        self.url = f"redis+sentinel://127.0.0.1:{self.sentinel.port}/jobs?timeout=2s"

    def start(self) -> None:
        self.master.start()
        self.replica.start()
        with self.replica.client() as client:
            assert comes_true(lambda: client.info("replication")["master_link_status"] == "up")
        self.sentinel.start()
        with self.sentinel.client() as client:
            assert comes_true(lambda: client.execute_command("SENTINEL", "REPLICAS", "jobs") != [])

    def stop(self) -> None:
        for server in (self.sentinel, self.replica, self.master):
            server.kill()


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    service = Service(folder)
    try:
        service.start()
        yield service
    finally:
        service.stop()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_workers_go_on_by_themselves_when_a_replica_takes_over(tmp_path: Path) -> None:
    with ExitStack() as stack:
        service = stack.enter_context(serving(tmp_path))
        app = Penstock(service.url)
        epoch = app.engine.describe().epoch
        stack.enter_context(working(service.url, "--log-level", "warning"))
        accepted: list[str] = []
        over = threading.Event()

        def enqueue() -> None:
            while not over.is_set():
                with suppress(EngineUnavailable):  # between two masters there is none
                    accepted.append(app.enqueue("shop.send", len(accepted)).id)

        load = threading.Thread(target=enqueue)
        load.start()
        stack.callback(load.join)
        stack.callback(over.set)
        assert comes_true(lambda: ended(app) > 50)
        service.master.kill()
        with service.replica.client() as client:
            assert comes_true(lambda: client.info("replication")["role"] == "master", 60)
        at_takeover = len(accepted)
        assert comes_true(lambda: len(accepted) > at_takeover + 100, 60)
        over.set()
        load.join()
        assert comes_true(lambda: unfinished(app) == 0, 60)
        assert app.engine.describe().epoch != epoch
        after = app.engine.get([JobId(id) for id in accepted[at_takeover:]])
        assert {job.state if job else None for job in after} == {State.SUCCEEDED}


def ended(app: Penstock) -> int:
    return sum(row.states.get(State.SUCCEEDED, 0) for row in counted(app))


def unfinished(app: Penstock) -> int:
    return sum(row.states.get(state, 0) for row in counted(app) for state in (State.READY, State.RUNNING))


def counted(app: Penstock):  # type: ignore[no-untyped-def]  # whatever counts gives
    try:
        return app.engine.counts()
    except EngineUnavailable:
        return []


# -- a full server with workers ---------------------------------------------------------------------------------------


def test_full_server_refuses_work_ends_what_runs_and_recovers_by_itself(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        app = Penstock(server.url)
        lingering = app.enqueue("shop.linger", 1.0)
        waiting = [app.enqueue("shop.send", number) for number in range(20)]
        with working(server.url), server.client() as client:
            assert comes_true(lambda: lingering.state() is State.RUNNING)
            client.config_set("maxmemory", 1_000_000)
            with pytest.raises(EngineFull, match="maxmemory"):
                app.enqueue("shop.send", 21)
            assert comes_true(lambda: all(job.state() is State.SUCCEEDED for job in (lingering, *waiting)))
            with pytest.raises(EngineFull, match="maxmemory"):
                app.enqueue("shop.send", 22)
            client.config_set("maxmemory", 0)
            after = app.enqueue("shop.send", 23)
            assert comes_true(lambda: after.state() is State.SUCCEEDED)
    finally:
        server.kill()
