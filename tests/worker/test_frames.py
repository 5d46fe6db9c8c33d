"""Which function of the application an error is told of."""

import json
import sys
from collections.abc import Callable
from types import ModuleType

from penstock.worker.frames import own_frame


def place_of(function: Callable[[], object]) -> str:
    try:
        function()
    except ValueError as error:
        trace = error.__traceback__
        assert trace is not None
        return own_frame(trace.tb_next)
    raise AssertionError("nothing was raised")


def read_broken() -> None:
    json.loads("{")


def made_of(source: str, file: str, name: str) -> ModuleType:
    """Give a module as if it stood in a file."""
    module = ModuleType(name)
    exec(compile(source, file, "exec"), module.__dict__)
    return module


def test_innermost_function_of_the_application_is_named_not_that_of_a_library() -> None:
    assert place_of(read_broken) == f"{__name__}:read_broken"
    assert place_of(lambda: read_broken()) == f"{__name__}:read_broken"


def test_installed_packages_are_libraries_but_for_the_one_of_the_task() -> None:
    source = "def call(function):\n    function()\ndef fail():\n    raise ValueError\n"
    library = made_of(source, "/usr/lib/python3/dist-packages/requests/api.py", "requests.api")
    shop = made_of(source, "/srv/venv/lib/python3.11/site-packages/shop/jobs.py", "shop.jobs")
    helper = made_of(source, "/srv/venv/lib/python3.11/site-packages/shop/mail.py", "shop.mail")
    assert own_of(shop, library) == "shop.jobs:call"
    assert own_of(shop, helper) == "shop.mail:fail"
    assert own_of(library, library) == "requests.api:fail"


def own_of(task: ModuleType, other: ModuleType) -> str:
    """Give the place of an error that `other` raises when the task calls it, without the frames of this test."""
    try:
        task.call(other.fail)
    except ValueError:
        trace = sys.exc_info()[2]
        assert trace is not None
        return own_frame(trace.tb_next)
    raise AssertionError("nothing was raised")


def test_error_without_a_frame_has_no_place() -> None:
    assert own_frame(None) == ""


def test_depth_does_not_matter() -> None:
    def deeper(left: int) -> None:
        if not left:
            raise ValueError
        deeper(left - 1)

    assert place_of(lambda: deeper(500)).endswith("deeper")
