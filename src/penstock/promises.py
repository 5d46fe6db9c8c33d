"""What the durability of a store promises, in words."""

__all__ = ["promise"]

_PROMISES = {
    "D0": "accepted jobs are lost with the store's process",
    "D1": (
        "every accepted job survives kills of workers and producers, "
        "but a crash of the store or a power cut may take the newest"
    ),
    "D2": "every accepted job survives power loss",
    "D3": "every accepted job survives the loss of the machine",
}


def promise(durability: str) -> str:
    """Say what an `EngineInfo.durability` promises.

    >>> promise("D2")
    'every accepted job survives power loss (D2)'
    """
    return f"{_PROMISES[durability]} ({durability})"
