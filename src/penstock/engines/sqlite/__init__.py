"""The SQLite engine: one file, no server."""

from penstock.engines.sqlite.engine import SqliteEngine

__all__ = ["SqliteEngine"]
