"""The PostgreSQL engine: many machines on one server."""

from penstock.engines.postgres.engine import PostgresEngine as PostgresEngine

__all__ = ["PostgresEngine"]
