"""The queues a worker serves: in a fixed order, or in an order drawn by weight for each exchange."""

import random
from collections.abc import Sequence

Groups = tuple[tuple[str, ...], ...]
Weighted = tuple[tuple[str, int | None], ...]


def read_queues(written: Sequence[str]) -> Weighted:
    """Read `name` and `name:weight` as they stand in the settings.

    >>> read_queues(["a:5", "b"])
    (('a', 5), ('b', None))
    """
    read = []
    for text in written:
        name, colon, weight = text.partition(":")
        read.append((name, int(weight) if colon else None))
    return tuple(read)


def groups(queues: Weighted | None) -> Groups | None:
    """Give the queues in the order to claim from, each a group of its own; None for every queue.

    With weights, each place is drawn in proportion to the weights left: a queue of weight 5 stands before one of weight
    1 five times out of six. A queue without a weight counts 1.
    Source: P. Efraimidis, P. Spirakis, "Weighted random sampling with a reservoir", 2006.
    """
    if queues is None:
        return None
    if all(weight is None for _, weight in queues):
        return tuple((name,) for name, _ in queues)
    ranked = sorted(queues, key=lambda queue: -(random.random() ** (1 / max(1, queue[1] or 1))))
    return tuple((name,) for name, _ in ranked)
