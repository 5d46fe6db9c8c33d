"""Write the pages of docs/reference that say what the code says: settings, the Python interface, the command line.

`python tools/make_reference.py` writes them; with `--check` it only says which differ, and exits 1.
"""

import enum
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import penstock
import penstock.testing
from penstock.cli.main import cli
from penstock.context import JobContext
from penstock.handle import JobHandle
from penstock.settings import OPTIONS
from penstock.task import Task

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
NOTE = "<!-- Made by tools/make_reference.py from the code; change it there. -->\n"


def main(arguments: list[str]) -> int:
    pages = {"settings.md": settings(), "python.md": python(), "cli.md": commands()}
    stale = [name for name, text in pages.items() if _read(FOLDER / name) != text]
    if "--check" in arguments:
        print(
            *(f"docs/reference/{name} is out of date; run python tools/make_reference.py" for name in stale), sep="\n"
        )
        return 1 if stale else 0
    for name in stale:
        (FOLDER / name).write_text(pages[name])
    return 0


def settings() -> str:
    """Make the table of settings."""
    lines = [
        "# Settings\n",
        NOTE,
        "Arguments win over environment variables, these over the settings file.",
        "The file is `penstock.toml`, or the table `[tool.penstock]` of `pyproject.toml`, searched from the working",
        "directory upwards. `penstock config` shows every value and where it comes from.\n",
        "| setting | variable | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for option in OPTIONS:
        cells = (f"`{option.name}`", f"`{option.variable}`", _cell(option.default), _cell(option.meaning))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def python() -> str:
    """Make the page of public names, from their docstrings."""
    parts = [
        "# Python interface\n",
        NOTE,
        "Everything here is imported from `penstock`, unless its name says from where.\n",
    ]
    named: dict[str, Any] = {name: getattr(penstock, name) for name in sorted(penstock.__all__) if name[0] != "_"}
    for value in (JobHandle, JobContext, Task):
        named.setdefault(value.__name__, value)
    for name, value in sorted(named.items(), key=lambda item: (not _is_main(item[0]), item[0])):
        parts += list(_describe(name, value))
    for name in penstock.testing.__all__:
        parts += list(_describe(f"penstock.testing.{name}", getattr(penstock.testing, name)))
    return "\n".join(parts)


def commands() -> str:
    """Make the page of commands, from their own help."""
    parts = ["# Command line\n", NOTE]
    parts += list(_command_help(cli, "penstock", None))
    return "\n".join(parts)


def _is_main(name: str) -> bool:
    return name in {"Penstock", "Task", "JobHandle", "JobContext", "current_job"}


def _describe(name: str, value: Any) -> Iterator[str]:
    yield f"## `{name}`\n"
    yield from _signature(name, value)
    yield _prose(value)
    if not inspect.isclass(value) or issubclass(value, BaseException):
        return
    for member, function in inspect.getmembers(value):
        if member[0] == "_" or not (inspect.isfunction(function) or isinstance(function, property)):
            continue
        yield f"### `{name}.{member}`\n"
        yield from _signature(member, function)
        prose = _prose(function)
        yield prose if prose.strip() else "As its name says.\n"


def _signature(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, property) or (inspect.isclass(value) and issubclass(value, BaseException)):
        return
    if inspect.isclass(value) and issubclass(value, enum.Enum):
        yield f"```text\n{', '.join(str(member.value) for member in value)}\n```\n"
        return
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return
    bare = [_bare(parameter) for parameter in signature.parameters.values()]
    shown = [parameter for parameter in bare if parameter.name not in {"self", "cls"}]
    signature = signature.replace(parameters=shown, return_annotation=signature.empty)
    yield f"```text\n{name}{signature}\n```\n"


def _bare(parameter: inspect.Parameter) -> inspect.Parameter:
    """Drop the annotation, and a default that only marks that nothing was given."""
    default = "..." if type(parameter.default) is object else parameter.default
    return parameter.replace(annotation=parameter.empty, default=default)


def _prose(value: Any) -> str:
    text = inspect.getdoc(value) or ""
    return f"```text\n{text}\n```\n" if ">>>" in text or "Args:" in text or "Attributes:" in text else f"{text}\n"


def _command_help(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(
        command, info_name=path.split()[-1], parent=parent, max_content_width=100, terminal_width=100
    )
    yield f"## `{path}`\n"
    yield f"```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _command_help(inner, f"{path} {name}", context)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
