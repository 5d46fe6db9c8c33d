"""The application of the crash points: each job does all that a job can do, and tells what it did."""

from penstock.client import Penstock
from penstock.context import current_job
from tests.crashpoints.points import play, reach, role_of_worker
from tests.crashpoints.told import DONE
from tests.torture.records import EFFECTS, Record, folder, store_url

app = Penstock(store_url())
effects = Record(EFFECTS)

done = Record(DONE)


def _begin() -> str:
    me = current_job()
    fence = me.claim.fence
    effects.add("began", me.id, fence.number, fence.token, 0)
    return f"{fence.number}:{fence.token}"


def _end() -> None:
    me = current_job()
    fence = me.claim.fence
    effects.add("ended", me.id, fence.number, fence.token, 0)


@app.task(max_attempts=1, max_crashes=10_000)
def echo(_name: str) -> str:
    claim = _begin()
    _end()
    return claim


@app.task(queue="errands", max_attempts=1, max_crashes=10_000)
def errand(name: str) -> str:
    reach("before", "job")
    claim = _begin()
    me = current_job()
    me.progress(1, 3, "begun")
    me.step("reserve", reserve, name)
    done.add("recorded", name)
    me.once(f"pay {name}", pay, name, unknown=lambda: was_paid(name))
    echo.using(idempotency_key=f"follow {me.id}").enqueue(f"{name}.follow")
    _end()
    reach("after", "job")
    return claim


def reserve(name: str) -> None:
    reach("before", "step")
    done.add("step", name)
    reach("after", "step")


def pay(name: str) -> None:
    reach("before", "side effect")
    done.add("paid", name)
    reach("after", "side effect")


def was_paid(name: str) -> bool:
    return f"paid {name}" in (folder() / DONE).read_text().splitlines()


@app.task(max_attempts=1, max_crashes=10_000)
def plain(_name: str) -> str:
    claim = _begin()
    _end()
    return claim


@app.task(max_attempts=1, max_crashes=10_000, fallback=plain)
def frail(name: str) -> str:
    """Fail until somebody has mended what it needs."""
    claim = _begin()
    if not (folder() / f"mended-{name}").exists():
        raise ConnectionError("not yet")
    _end()
    return claim


if (role := role_of_worker()) is not None:
    play(role)
