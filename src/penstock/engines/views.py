"""What is shown of workers, made of the rows in which SQL stores keep their processes."""

from collections.abc import Iterable
from typing import Any

import msgspec

from penstock.engine import WorkerInfo, WorkerView
from penstock.model.job import ProcessId


def views_of(rows: Iterable[tuple[Any, ...]], steady_ms: int, boot: str) -> list[WorkerView]:
    """Give a view for each worker, in the order of the rows.

    Args:
        rows: for each process its worker, what is known of that as JSON, whether it drains, when it enrolled; its id,
            when its lease lapses on the clock of which boot, how many claims it holds.
    """
    by_worker: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        by_worker.setdefault(row[0], []).append(row)
    return [
        WorkerView(
            info=msgspec.json.decode(rows[0][1], type=WorkerInfo),
            processes=tuple(ProcessId(row[4]) for row in rows),
            running=sum(row[7] for row in rows),
            drain=bool(rows[0][2]),
            lease_left_ms=max(max(0, row[5] - steady_ms) if row[6] == boot else 0 for row in rows),
            enrolled_ms=rows[0][3],
        )
        for rows in by_worker.values()
    ]
