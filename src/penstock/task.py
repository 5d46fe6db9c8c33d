"""What a decorated function becomes: still a function, and a way to enqueue calls of it."""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, Unpack

import msgspec

from penstock.checks import is_text
from penstock.context import running
from penstock.engine import Added
from penstock.handle import JobHandle, Store
from penstock.model.codec import Envelope, encode_envelope, encode_value
from penstock.model.errors import ArgumentsInvalid
from penstock.model.job import NO_DETAILS, Details, JobId, NewJob, Unique
from penstock.options import PLAIN, JobTerms, Terms, Traits, read_terms
from penstock.signature import Signature, anything, enc_hook

__all__ = ["AsyncTask", "Bound", "Home", "Remote", "Task", "Using", "new_id"]

P = ParamSpec("P")
R = TypeVar("R")

#: Longer unique keys are stored as a digest.
_LONGEST_KEY = 200

_PLAIN_TRAITS = Traits()

_encode_key = msgspec.json.Encoder(enc_hook=enc_hook, order="deterministic").encode


class Home(Store, Protocol):
    """What a task needs of its application."""

    @property
    def max_payload(self) -> int:
        """The most bytes that an envelope or a result may have."""
        ...

    def store(self, jobs: Sequence[NewJob], connection: Any) -> list[Added]:
        """Store jobs whole or not at all, durably, or within the transaction of a connection."""
        ...

    async def astore(self, jobs: Sequence[NewJob], connection: Any) -> list[Added]: ...


class Calls(Generic[P, R]):
    """A task on certain terms: what `Task` and `Task.using(...)` have in common."""

    __slots__ = ("_task", "_terms")

    def __init__(self, task: "Remote", terms: Terms) -> None:
        self._task = task
        self._terms = terms

    def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Store a job of this task; when this returns it is as durable as the engine promises.

        Raises:
            ArgumentsInvalid: the arguments do not fit the signature; nothing was stored.
            PayloadInvalid: an argument cannot travel as JSON, or they are too large.
            JobRefused: the store refused it: its queue is full, or its key is held.
            ConnectionInvalid: the connection it was to use cannot carry it.
            EngineUnavailable: the store did not take it within 5 s.
        """
        task, terms = self._task, self._terms
        job = task.new_job(args, kwargs, terms)
        return task.handle(task.home.store((job,), terms.connection)[0], job)

    async def aenqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Do `enqueue` without blocking the event loop; with a connection, in this thread, which may block."""
        task, terms = self._task, self._terms
        job = task.new_job(args, kwargs, terms)
        added = await task.home.astore((job,), terms.connection)
        return task.handle(added[0], job)

    def enqueue_many(self, calls: Iterable[tuple[Any, ...]]) -> list[JobHandle[R]]:
        """Store a job for each tuple of positional arguments, in the order given.

        All are checked before the first is stored. Each 1,000 are stored whole or not at all.

        Raises:
            ArgumentsInvalid: the arguments of one do not fit; nothing was stored.
        """
        task, terms = self._task, self._terms
        jobs = [task.new_job(_as_tuple(task, call), _NO_KWARGS, terms) for call in _each(task, calls)]
        return [
            task.handle(added, job) for added, job in zip(task.home.store(jobs, terms.connection), jobs, strict=True)
        ]

    def bind(self, /, *args: P.args, **kwargs: P.kwargs) -> "Bound[R]":
        """Keep a call for later; its arguments are checked now."""
        self._task.pack_arguments(args, kwargs)
        return Bound(self._task, self._terms, args, kwargs)

    def using(self, **terms: Unpack[JobTerms]) -> "Using[P, R]":
        """Set the terms of the jobs to enqueue; what is left out stays as the task has it.

        Args:
            queue: where they go.
            priority: -100 to 100, higher runs first.
            delay: how long it waits first.
            run_at: when it becomes ready, with a time zone; not together with a delay.
            expires: how long it may wait for its start, or until when.
            unique: at most one live job for each key: True for all arguments, a template such as "{order_id}", a
                function of the arguments, or a `Unique`.
            idempotency_key: enqueueing again under the same key gives the first job.
            order_key: jobs of one key run one after the other.
            tags: words to find the job by; they are added to those of the task.
            connection: of sqlite3, psycopg, SQLAlchemy or Django, to the database that has the store or the outbox:
                the job is written in its transaction, appears when that commits, and never when it rolls back.
            headers: texts that travel with the job.

        Raises:
            TaskInvalid: a term is not known or cannot be used.
            DurationInvalid: a delay or deadline is no duration.
        """
        return Using(self._task, terms)


class Using(Calls[P, R]):
    """A task with terms for the jobs to enqueue; made by `Task.using`."""

    __slots__ = ("_given",)

    def __init__(self, task: "Remote", given: JobTerms) -> None:
        super().__init__(task, read_terms(given))
        self._given = given

    def using(self, **terms: Unpack[JobTerms]) -> "Using[P, R]":
        """Set further terms; those set before stay, unless they are set again."""
        return Using(self._task, {**self._given, **terms})


class Bound(Generic[R]):
    """A call that was checked and not yet made; made by `Task.bind`."""

    __slots__ = ("_task", "_terms", "args", "kwargs")

    def __init__(self, task: "Remote", terms: Terms, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._task, self._terms, self.args, self.kwargs = task, terms, args, kwargs

    def enqueue(self) -> JobHandle[R]:
        """Store a job of this call, as `Task.enqueue` does."""
        return Calls[..., R](self._task, self._terms).enqueue(*self.args, **self.kwargs)

    async def aenqueue(self) -> JobHandle[R]:
        """Do `enqueue` without blocking the event loop."""
        return await Calls[..., R](self._task, self._terms).aenqueue(*self.args, **self.kwargs)

    def __repr__(self) -> str:
        return f"<Bound {self._task.name} {self.args!r} {self.kwargs!r}>"


class Remote:
    """A task by its name alone, as another program may have it: what it takes and gives is any JSON."""

    def __init__(
        self, home: Home, name: str, signature: Signature | None = None, traits: Traits = _PLAIN_TRAITS
    ) -> None:
        self.home = home
        self.name = name
        self.queue = traits.queue
        self.priority = traits.priority
        self.policy = traits.policy
        self.tags = traits.tags
        self._unique = traits.unique
        self._details = Details(tags=self.tags) if self.tags else NO_DETAILS
        self._signature = signature or Signature(name, anything)
        self._what_it_gave = f"the result of task {name!r}"

    def pack_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Write arguments as JSON after checking that the task takes them."""
        return self._signature.encode(args, kwargs, self.home.max_payload)

    def pack(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> tuple[bytes, int]:
        """Make the envelope of a call, with its CRC-32."""
        limit = self.home.max_payload
        written, written_kwargs = self._signature.encode(args, kwargs, limit)
        return encode_envelope(self.name, written, written_kwargs, headers=headers, limit=limit)

    def new_job(self, args: Sequence[Any], kwargs: Mapping[str, Any], terms: Terms = PLAIN) -> NewJob:
        """Make the job of a call, with an id of its own."""
        envelope, crc = self.pack(args, kwargs, terms.headers)
        parent = running()
        plain = terms is PLAIN and self._unique is None and parent is None
        details = self._details if plain else self._detailed(args, kwargs, terms, parent.id if parent else None)
        return NewJob(
            id=new_id(),
            task=self.name,
            envelope=envelope,
            crc=crc,
            queue=terms.queue or self.queue,
            priority=self.priority if terms.priority is None else terms.priority,
            delay_ms=terms.delay_ms,
            run_at_ms=terms.run_at_ms,
            expires_ms=terms.expires_ms,
            expires_in_ms=terms.expires_in_ms,
            policy=self.policy,
            details=details,
        )

    def handle(self, added: Added, job: NewJob) -> JobHandle[Any]:
        return JobHandle(self.home, added.id, self.name, added.id != job.id)

    def decode(self, envelope: Envelope) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read stored arguments as the task's annotations say.

        Raises:
            ArgumentsInvalid: they do not fit, for instance because the task has changed.
        """
        return self._signature.decode(bytes(envelope.args), bytes(envelope.kwargs))

    def encode_result(self, value: Any) -> bytes:
        """Write what the task returned.

        Raises:
            PayloadInvalid: it cannot travel as JSON, or is too large.
        """
        if value is None:
            return b"null"
        return encode_value(value, self._what_it_gave, limit=self.home.max_payload, enc_hook=enc_hook)

    def decode_result(self, data: bytes) -> Any:
        """Read a result as the return annotation says."""
        return self._signature.decode_result(data)

    def _detailed(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], terms: Terms, parent_job: JobId | None
    ) -> Details:
        unique = terms.unique if terms.unique is not None else self._unique
        return Details(
            tags=(*self.tags, *(tag for tag in terms.tags if tag not in self.tags)),
            unique=None if unique is None else self._key(unique, args, kwargs),
            idempotency_key=terms.idempotency_key,
            order_key=terms.order_key,
            parent_job=parent_job,
        )

    def _key(self, unique: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Unique:
        """Make the key that one live job may hold; the task's name stands before it."""
        rule = unique if isinstance(unique, Unique) else None
        maker = rule.key or True if rule is not None else unique
        if callable(maker):
            text = maker(*args, **kwargs)
        else:
            text = self._text_of_key(maker, self._signature.bound(args, kwargs))
        if not is_text(text):
            raise ArgumentsInvalid(
                self.name, f"their unique key is {text!r}; make one that is text, not empty, in valid Unicode."
            )
        if len(text) > _LONGEST_KEY:
            from hashlib import blake2b

            text = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
        key = f"{self.name}:{text}"
        return Unique(key) if rule is None else Unique(key, rule.until, rule.window_ms, rule.clash)

    def _text_of_key(self, maker: Any, arguments: Mapping[str, Any]) -> str:
        if maker is True:
            return _encode_key(arguments).decode()
        try:
            return str(maker).format(**arguments)
        except (LookupError, AttributeError, ValueError, TypeError) as error:
            raise ArgumentsInvalid(
                self.name,
                f"the unique key template {maker!r} does not fit them: "
                f"{f'there is no {error}' if isinstance(error, KeyError) else error}. "
                f"It may name {', '.join(arguments) or 'nothing, as there are none'}.",
            ) from error


class Task(Remote, Calls[P, R]):
    """A registered function or command: call it here and now, or enqueue calls of it.

    Attributes:
        function: what was decorated.
        runner: `thread`, `loop`, `process` or `command`.
        policy: stored with every job of the task.
        command: the command line of a command task, else None.
        max_memory: bytes that a child of the process lane may use, None for no bound.
    """

    __name__: str
    __qualname__: str

    def __init__(
        self,
        home: Home,
        name: str,
        function: Callable[..., Any],
        *,
        runner: str,
        traits: Traits,
        command: tuple[str, ...] | None = None,
    ) -> None:
        Remote.__init__(self, home, name, Signature(name, function), traits)
        Calls.__init__(self, self, PLAIN)
        self.function = function
        self.runner = runner
        self.command = command
        self.max_memory = traits.max_memory
        self.depends_on = traits.depends_on
        self.__wrapped__ = function
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(self, attribute, getattr(function, attribute, None))

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now; nothing is stored."""
        result: R = self.function(*args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<Task {self.name} on queue {self.queue}>"


class AsyncTask(Task[P, R]):
    """A task whose function is a coroutine function: its jobs give what the coroutine returns."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
        """Give the coroutine; nothing is stored. (The result type differs from `Task` as with any coroutine.)"""
        coroutine: Coroutine[Any, Any, R] = self.function(*args, **kwargs)
        return coroutine


_NO_KWARGS: Mapping[str, Any] = {}


def new_id() -> JobId:
    """Draw a UUIDv7."""
    return JobId(str(_uuid7()()))


@cache
def _uuid7() -> Callable[[], object]:
    """Import what draws them late, because it would take a tenth of the time of `import penstock`."""
    from uuid_utils import uuid7

    return uuid7


def _each(task: Remote, calls: Any) -> Iterable[Any]:
    if isinstance(calls, Iterable):
        return calls
    raise ArgumentsInvalid(task.name, f"enqueue_many takes a list of tuples, as in [(7,), (8,)], not {calls!r}.")


def _as_tuple(task: Remote, call: Any) -> Sequence[Any]:
    if isinstance(call, tuple | list):
        return call
    raise ArgumentsInvalid(task.name, f"enqueue_many takes a tuple for each job, as in [(7,), (8,)], not {call!r}.")
