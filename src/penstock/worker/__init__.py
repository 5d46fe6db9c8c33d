"""The worker: a supervisor and its processes, which run jobs."""

from penstock.worker.entry import run

__all__ = ["run"]
