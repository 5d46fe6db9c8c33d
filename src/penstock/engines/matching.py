"""Which jobs a filter asks for, for what stores cannot say themselves."""

from msgspec.structs import replace

from penstock.engine import Filter
from penstock.model.codec import decode_envelope
from penstock.model.errors import EnvelopeCorrupt, EnvelopeTooNew
from penstock.model.job import Job
from penstock.model.states import State

_BURIED = frozenset({State.BURIED})


def narrowed(which: Filter) -> Filter:
    """Give a filter with what follows from it: the jobs of a group are buried."""
    if which.group is None:
        return which
    return replace(which, states=_BURIED if which.states is None else which.states & _BURIED)


def matches(job: Job, which: Filter) -> bool:
    """Say so for all but `ids`, `before` and `limit`, by which a store chooses what it looks at."""
    return (
        (which.queue is None or job.queue == which.queue)
        and (which.states is None or job.state in which.states)
        and (which.task is None or job.task == which.task)
        and (which.tag is None or which.tag in job.details.tags)
        and (which.degraded is None or which.degraded == (job.degraded is not None))
        and (which.group is None or which.group == job.group)
        and (which.text is None or any(_lower(which.text) in _lower(text) for text in _texts(job)))
    )


def _texts(job: Job) -> tuple[str, ...]:
    return (job.id, job.task, _arguments(job), str(job.error or ""))


def _arguments(job: Job) -> str:
    """Give the arguments as they are stored; an envelope that cannot be read is searched whole."""
    try:
        envelope = decode_envelope(job.envelope, None)
    except (EnvelopeCorrupt, EnvelopeTooNew):
        return job.envelope.decode("utf-8", "replace")
    return bytes(envelope.args).decode() + bytes(envelope.kwargs).decode()


def _lower(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass").lower()
