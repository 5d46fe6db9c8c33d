"""What a worker says of itself: to its processes, to the store, and to the person who started it."""

import logging
import os
import socket

from penstock.engine import EngineInfo, WorkerInfo
from penstock.engines.clock import SystemClock
from penstock.model.job import ProcessId
from penstock.promises import promise
from penstock.serving import birth_of
from penstock.settings import Settings
from penstock.version import VERSION
from penstock.worker.channel import Hello, Plan
from penstock.worker.queues import read_queues

__all__ = ["announce", "introduce", "names_of", "plan_of"]

log = logging.getLogger("penstock.worker")


def plan_of(settings: Settings) -> Plan:
    """Make what the processes need of the settings. Only a URL given as an argument outdoes the application's."""
    return Plan(
        app=settings.app or "",
        url=settings.url if settings.source("url") == "argument" else None,
        queues=None if settings.queues is None else read_queues(settings.queues),
        places={
            "thread": settings.slots,
            "loop": settings.coroutines,
            "process": settings.children,
            "command": settings.slots,
        },
        lease_ms=round(settings.lease * 1000),
        shutdown_ms=round(settings.shutdown_timeout * 1000),
        start_ms=round(settings.start_timeout * 1000),
        health_ms=round(settings.health_period * 1000),
        quarantine=settings.quarantine,
        max_jobs=settings.max_jobs,
        max_memory=settings.max_memory,
        reload=settings.reload,
        log_level=settings.log_level,
        log_format=settings.log_format,
    )


def names_of(plan: Plan) -> tuple[str, ...] | None:
    """Give the names of its queues, None for all."""
    return None if plan.queues is None else tuple(name for name, _ in plan.queues)


def introduce(worker: ProcessId, settings: Settings, plan: Plan, hello: Hello) -> WorkerInfo:
    """Say who this worker is, with the tasks that its newest process knows."""
    return WorkerInfo(
        id=worker,
        host=socket.gethostname(),
        pid=os.getpid(),
        boot=SystemClock().boot(),
        birth=birth_of(os.getpid()),
        version=VERSION,
        queues=names_of(plan),
        tasks=tuple(sorted(hello.tasks)),
        slots=settings.slots * settings.processes,
        lease_ms=plan.lease_ms,
    )


def announce(settings: Settings, hello: Hello, store: EngineInfo) -> None:
    """Log what this worker works on."""
    queues = settings.queues
    tasks = sorted(hello.tasks)
    named = ", ".join(tasks[:10]) + (", ..." if len(tasks) > 10 else "")
    log.info(
        "penstock %s at %s (%s, %s): queues %s, %d tasks (%s), %d processes x %d slots",
        VERSION,
        store.url,
        store.kind,
        promise(store.durability),
        "all" if queues is None else ",".join(queues),
        len(tasks),
        named or "none",
        settings.processes,
        settings.slots,
    )
