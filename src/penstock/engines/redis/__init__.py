"""The Redis engine: a store in one slot of a Redis or Valkey server, driven by one Lua script for each verb.

Nothing is imported here, so that an address can be checked without the engine.
"""
