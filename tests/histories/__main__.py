"""Judge a history that was kept: python -m tests.histories FOLDER [JOB]; with a job, show all that happened to it."""

import sys
from pathlib import Path

from tests.histories import reading
from tests.histories.checker import check
from tests.histories.judging import figures


def main(folder: str, job: str = "") -> int:
    history = reading.read(Path(folder))
    if job:
        print(*(op for op in history.ops if getattr(op.act, "job", "") == job), sep="\n")
        print(history.final.jobs.get(job))  # type: ignore[call-overload]
        return 0
    found = check(history)
    print(*found, sep="\n")
    print(f"{figures(history)}: {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
