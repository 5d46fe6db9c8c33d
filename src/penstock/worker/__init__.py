"""The worker: a supervisor and its processes, which run jobs."""

from penstock.worker.supervisor import run

__all__ = ["run"]
