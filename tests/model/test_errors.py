import copy
import inspect
import pickle  # noqa: TID251 - what other people's process pools do to our errors
import re
from collections.abc import Iterator

import pytest

from penstock.model import errors
from penstock.model.errors import (
    ArgumentsInvalid,
    Bury,
    Cancel,
    DurationInvalid,
    EngineUnknown,
    EnvelopeTooNew,
    IdempotencyConflict,
    JobFailed,
    JobNotFound,
    LeaseLost,
    PayloadInvalid,
    PayloadTooLarge,
    PenstockError,
    QueueFull,
    ResultTimeout,
    Retry,
    SchemaMismatch,
    SettingsInvalid,
    Snooze,
    Steering,
    TaskUnknown,
    TextInvalid,
    UniqueConflict,
    Unsupported,
    WorkerUnfit,
)

SPEAKING = [
    (SettingsInvalid(["slots is 0", "lease is 'x'"]), "slots is 0\nlease is 'x'"),
    (DurationInvalid("soon", "its form is not known"), "'soon' is not a duration: its form is not known. Give seconds"),
    (TextInvalid("id of a job", "a\udc80"), r"'a\udc80' is no id of a job: it holds a lone surrogate, as bytes that"),
    (TaskUnknown("mail.send"), "Task 'mail.send' is not registered here."),
    (TaskUnknown("a", ["c", "b"]), "Task 'a' is not registered here. Registered here: b, c."),
    (
        TaskUnknown("send", ["mail.send", "mail.bend"]),
        "Task 'send' is not registered here. Did you mean 'mail.send'? Registered here: mail.bend, mail.send.",
    ),
    (
        TaskUnknown("mail.snd", ["mail.send"]),
        "Task 'mail.snd' is not registered here. Did you mean 'mail.send'? Registered here: mail.send.",
    ),
    (PayloadInvalid("It holds nan.", "a[0]"), "It holds nan."),
    (ArgumentsInvalid("t", "n is text", "n"), "Task 't' does not take these arguments: n is text"),
    (PayloadTooLarge("The result", 2048, 1024), "The result came to 2,048 bytes as JSON, over the limit of 1,024."),
    (EnvelopeTooNew(3, 1), "version 3; this penstock reads up to 1. Upgrade"),
    (JobNotFound("j1"), "No job has the id 'j1'."),
    (JobFailed("j1", "buried", "KeyError: 'x'", "Trace"), "Job j1 ended buried: KeyError: 'x'. See it with"),
    (JobFailed("j1", "expired", None), "Job j1 ended expired. See it with `penstock jobs show j1`."),
    (ResultTimeout("j1", "ready", 2.50), "is ready after 2.5 s. Wait longer, or see how far it is with `penstock jobs"),
    (ResultTimeout("j1", "ready", 10, "No worker."), "Job j1 is ready after 10 s. No worker."),
    (QueueFull("mail", 1000, 2.3456), "Queue 'mail' is full (1,000 jobs). Try again in 2.35 s,"),
    (UniqueConflict("k", "j1"), "Job j1 holds the unique key 'k'. Follow that job, cancel it, or"),
    (IdempotencyConflict("k", "j1"), "The idempotency key 'k' belongs to job j1, which has other content."),
    (LeaseLost("p1"), "The lease of process p1 is void"),
    (EngineUnknown("mysql://h", "No engine answers to mysql://h."), "No engine answers to mysql://h."),
    (SchemaMismatch(3, 2, "Too new."), "Too new."),
    (Unsupported("memory", "parents"), "The memory engine does not support parents; do without"),
    (Unsupported("memory", "transactions"), "The memory engine does not support transactions; leave connection= out"),
]


@pytest.mark.parametrize(("error", "text"), SPEAKING, ids=lambda value: type(value).__name__)
def test_message_says_what_happened_with_the_value(error: PenstockError, text: str) -> None:
    assert str(error).startswith(text) or text in str(error)


@pytest.mark.parametrize("error", [error for error, _ in SPEAKING], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "journey", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"]
)
def test_error_keeps_its_message_and_facts_when_it_is_copied(error: PenstockError, journey: object) -> None:
    copied = journey(error)  # type: ignore[operator]
    assert type(copied) is type(error)
    assert (str(copied), vars(copied)) == (str(error), vars(error))


@pytest.mark.parametrize("signal", [Retry("r", after="5m"), Snooze("1h", "r"), Bury("r"), Cancel(), WorkerUnfit("r")])
def test_signal_keeps_its_reason_and_duration_when_it_is_copied(signal: Steering) -> None:
    copied = pickle.loads(pickle.dumps(signal))
    assert (type(copied), vars(copied)) == (type(signal), vars(signal))


@pytest.mark.parametrize("kind", [Retry, Bury, Cancel, WorkerUnfit])
def test_signal_needs_no_reason_and_is_not_caught_as_an_error(kind: type[Steering]) -> None:
    assert kind().reason == ""
    assert not issubclass(kind, Exception)


def test_snooze_needs_a_duration() -> None:
    assert (Snooze("1h").after, Snooze("1h").reason) == ("1h", "")
    assert (Retry("again").after, str(Retry("again"))) == (None, "again")
    assert not issubclass(Snooze, Exception)


def test_unknown_task_names_at_most_twenty_others() -> None:
    assert str(TaskUnknown("x", [f"t{n:02}" for n in range(30)])).endswith("t18, t19 and 10 more.")


def test_value_of_a_duration_is_shown_in_bounded_length() -> None:
    assert len(str(DurationInvalid("x" * 10_000, "its form is not known"))) < 300
    assert str(DurationInvalid(10**5000, "it is above 100 years")).startswith("A number of thousands of digits is not")


def test_tree_at_the_top_of_the_module_is_the_tree_of_classes() -> None:
    assert list(drawn_tree()) == list(real_tree(PenstockError, 0))


def drawn_tree() -> Iterator[tuple[int, str]]:
    _, _, tree = inspect.cleandoc(errors.__doc__ or "").partition("\n\n")
    for line in tree.splitlines():
        branches, name = re.match(r"([│├└─ ]*)(\w+)", line).groups()  # type: ignore[union-attr]
        yield len(branches) // 4, name


def real_tree(kind: type[PenstockError], depth: int) -> Iterator[tuple[int, str]]:
    yield depth, kind.__name__
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from real_tree(child, depth + 1)
