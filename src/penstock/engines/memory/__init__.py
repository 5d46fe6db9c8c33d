"""The executable specification of an engine: plain dicts under one lock, gone with the process."""

from penstock.engines.memory.engine import MemoryEngine as MemoryEngine

__all__ = ["MemoryEngine"]
