"""The Redis engine: a store in one slot of a Redis or Valkey server, driven by one Lua script for each verb."""

from penstock.engines.redis.engine import RedisEngine as RedisEngine

__all__ = ["RedisEngine"]
