"""Imports run one way: model <- engine <- engines, and model, engine <- client <- worker <- faces.

Every import counts, also inside functions and under TYPE_CHECKING. The rules are the table `LAYERS` below.
"""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "src"

BELOW_CLIENT = ("model", "engine", "outbox", "engines.open")
CLIENT = (
    *("client", "registration", "queues", "access", "task", "options", "checks", "signature", "expectation"),
    *(
        "handle",
        "dependencies",
        "records",
        "fallbacks",
        "fitness",
        "once",
        "remedies",
        "alerts",
        "notifying",
        "intake",
        "shield",
        "context",
        "settings",
        "loading",
        "moving",
        "version",
    ),
)
SHARED = ("engines.clock", "engines.checks")
WITHIN_ENGINES = tuple(
    f"engines.{name}"
    for name in ("arriving", "callers", "forms", "guard", "loading", "matching", "statements", "steering", "views")
)
STANDING = ("serving", "promises")
BELOW_FACES = (*BELOW_CLIENT, *SHARED, *CLIENT, *STANDING, "worker")

# Which parts of penstock a part may import besides itself. A part is a module or package below `penstock`.
LAYERS: dict[str, tuple[str, ...]] = {
    "model": (),
    "engine": ("model",),
    "outbox": ("model",),
    "engines.clock": ("model", "engine"),
    "engines.checks": ("model", "engine"),
    **dict.fromkeys(WITHIN_ENGINES, ("model", "engine")),
    "engines.loading": ("model", "engine", "engines.checks"),
    "engines.open": ("model", "engine", "outbox", *SHARED),  # and every engine, inside functions
    **dict.fromkeys(CLIENT, (*BELOW_CLIENT, *CLIENT)),
    **dict.fromkeys(STANDING, (*BELOW_CLIENT, *SHARED)),
    "worker": (*BELOW_CLIENT, *SHARED, *CLIENT, *STANDING),
    "server": BELOW_FACES,
    "integrations": BELOW_FACES,
    "bridges": BELOW_FACES,
    "testing": BELOW_FACES,
    "demo": BELOW_FACES,
    "cli": (*BELOW_FACES, "server", "demo"),  # `penstock serve` and `penstock dev` start the server
    "__main__": ("cli",),
    "": ("model", "engine", *CLIENT),  # penstock/__init__.py
}
ENGINE_MAY_IMPORT = ("model", "engine", "outbox", *SHARED, *WITHIN_ENGINES)

DRIVERS = {
    "sqlite3": "penstock.engines.sqlite",
    "redis": "penstock.engines.redis",
    "hiredis": "penstock.engines.redis",
    "psycopg": "penstock.engines.postgres",
    "psycopg_pool": "penstock.engines.postgres",
}

LAZY = {
    "apprise",
    "asyncio",
    "click",
    "cryptography",
    "hiredis",
    "jinja2",
    "multiprocessing",
    "opentelemetry",
    "prometheus_client",
    "psycopg",
    "redis",
    "rich",
    "sqlite3",
    "stamina",
    "starlette",
    "uvicorn",
}

# Parts of the standard library that each process of a worker would pay for at its start, and none of them needs.
SLOW = {"asyncio", "click", "email", "hashlib", "importlib.metadata", "importlib.resources", "tempfile", "zipfile"}

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True, slots=True)
class Module:
    """One parsed file of the tree."""

    name: str
    path: Path
    body: ast.Module


class Import(NamedTuple):
    """One import as written: who imports what, where."""

    importer: Module
    target: str
    line: int
    in_function: bool

    def __str__(self) -> str:
        return f"{self.importer.path}:{self.line}: {self.importer.name} imports {self.target}"


Tree = dict[str, Module]


def test_imports_run_one_way() -> None:
    found = misdirected(read_tree(SOURCE))
    assert not found, "\n".join(found)


def test_module_imports_make_no_cycle() -> None:
    found = cycle(read_tree(SOURCE))
    assert not found, "\n".join(found)


def test_drivers_stay_in_their_engines() -> None:
    found = stray_drivers(read_tree(SOURCE))
    assert not found, "\n".join(found)


def test_root_only_reexports() -> None:
    found = logic_in_root(read_tree(SOURCE))
    assert not found, "\n".join(found)


def test_import_of_penstock_leaves_the_heavy_modules_alone() -> None:
    assert LAZY & imported_with("penstock") == set()


@pytest.mark.parametrize("start", ["worker.entry", "worker.process", "worker.child", "engines.sqlite.engine"])
def test_processes_of_a_worker_start_without_slow_modules(start: str) -> None:
    assert SLOW & imported_with(f"penstock.{start}") == set()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("model/job.py", "import penstock.engine"),
        ("model/job.py", "from penstock import engine"),
        ("model/job.py", "from ..engine import Engine"),
        ("model/job.py", "def late():\n    from penstock.client import Penstock"),
        ("model/job.py", "if TYPE_CHECKING:\n    from penstock.worker.pump import Pump"),
        ("model/job.py", "import importlib\nimportlib.import_module('penstock.engine')"),
        ("engine.py", "from penstock.engines.open import open_engine"),
        ("engines/memory.py", "from penstock.engines.sqlite.store import Store"),
        ("engines/memory.py", "from penstock.settings import Settings"),
        ("engines/clock.py", "from penstock.engines.memory import Memory"),
        ("engines/open.py", "from penstock.engines.memory import Memory"),
        ("engines/open.py", "def late():\n    from penstock.settings import Settings"),
        ("client.py", "from penstock.engines.memory import Memory"),
        ("client.py", "from penstock.worker.pump import Pump"),
        ("client.py", "from penstock import Penstock"),
        ("client.py", "from . import Penstock"),
        ("client.py", "import penstock"),
        ("worker/pump.py", "from penstock.server.api import api"),
        ("worker/pump.py", "from penstock.engines.memory import Memory"),
        ("cli/main.py", "from penstock.testing.clock import Clock"),
        ("testing/clock.py", "from penstock import Penstock"),
        ("__init__.py", "from penstock.worker.pump import Pump"),
        ("leftovers.py", "VALUE = 1"),
    ],
)
def test_checker_finds_an_import_against_the_direction(tmp_path: Path, path: str, text: str) -> None:
    assert len(misdirected(plant(tmp_path, {path: text}))) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("model/job.py", "from penstock.model.states import State\nfrom .outcome import Outcome"),
        ("engine.py", "from penstock.model import job"),
        ("engines/memory.py", "from penstock.engine import Engine\nfrom penstock.engines import clock"),
        ("engines/sqlite/store.py", "from penstock.engines.sqlite.rows import row"),
        ("engines/open.py", "def open_engine():\n    from penstock.engines.sqlite.store import Store"),
        ("client.py", "from penstock.engines.open import open_engine\nfrom penstock import handle"),
        ("cli/main.py", "from penstock.server import api\nfrom penstock.worker.pump import Pump"),
        ("__main__.py", "from penstock.cli.main import main"),
        ("__init__.py", "from penstock.client import Penstock as Penstock\n__all__ = ['Penstock']"),
    ],
)
def test_checker_accepts_an_import_along_the_direction(tmp_path: Path, path: str, text: str) -> None:
    assert misdirected(plant(tmp_path, {path: text})) == []


def test_checker_finds_a_cycle(tmp_path: Path) -> None:
    files = {
        "model/job.py": "from penstock.model.states import State",
        "model/states.py": "def late():\n    from penstock.model import Job",
        "model/__init__.py": "from penstock.model.job import Job as Job",
    }
    found = cycle(plant(tmp_path, files))
    assert set(found) == {"penstock.model", "penstock.model.job", "penstock.model.states"}


def test_checker_finds_a_stray_driver(tmp_path: Path) -> None:
    files = {
        "engines/sqlite/store.py": "import sqlite3",
        "engines/postgres/store.py": "def late():\n    from psycopg.rows import tuple_row",
        "cli/main.py": "def late():\n    import sqlite3",
        "engines/memory.py": "from redis.asyncio import Redis",
    }
    found = stray_drivers(plant(tmp_path, files))
    assert sorted(line.rpartition(": ")[2] for line in found) == [
        "penstock.cli.main imports sqlite3",
        "penstock.engines.memory imports redis.asyncio",
    ]


@pytest.mark.parametrize("text", ["def late(): ...", "app = open('x')", "if True:\n    import os", "print()"])
def test_checker_finds_logic_in_the_root(tmp_path: Path, text: str) -> None:
    assert len(logic_in_root(plant(tmp_path, {"__init__.py": text}))) == 1


def plant(root: Path, files: dict[str, str]) -> Tree:
    """A tree of `files` and empty neighbours that they may import."""
    neighbours = (
        "__init__ engine client handle settings cli/main testing/clock worker/pump server/__init__ server/api"
        " model/__init__ model/job model/states model/outcome"
        " engines/__init__ engines/open engines/clock engines/memory engines/sqlite/store"
    )
    for name, text in ({f"{name}.py": "" for name in neighbours.split()} | files).items():
        path = root / "penstock" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_tree(root)


def imported_with(module: str) -> set[str]:
    program = f"import sys; before = set(sys.modules); import {module}; print(*set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def read_tree(root: Path) -> Tree:
    """Every module of penstock below `root`, by name."""
    modules = {}
    for path in sorted(root.glob("penstock/**/*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        modules[name] = Module(name, path, ast.parse(path.read_bytes(), filename=str(path)))
    return modules


def misdirected(tree: Tree) -> list[str]:
    """Each import that goes against the layers, and each module that has no place in them."""
    homeless = [module for module in tree.values() if part(module.name) is None]
    unplaced = [f"{module.path}: {module.name} has no place in LAYERS" for module in homeless]
    return unplaced + [str(found) for found in internal_imports(tree) if not allowed(found)]


def cycle(tree: Tree) -> list[str]:
    """One cycle of imports between modules, or nothing."""
    graph: dict[str, set[str]] = {name: set() for name in tree}
    for found in internal_imports(tree):
        graph[found.importer.name].add(found.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def stray_drivers(tree: Tree) -> list[str]:
    """Each import of a driver outside the engine that it belongs to."""
    found = (found for module in tree.values() for found in imports(module, tree))
    return [str(one) for one in found if strays(one)]


def strays(found: Import) -> bool:
    home = DRIVERS.get(found.target.partition(".")[0])
    return home is not None and not f"{found.importer.name}.".startswith(f"{home}.")


def logic_in_root(tree: Tree) -> list[str]:
    """Each statement of penstock/__init__.py besides its docstring, imports and dunder names."""
    root = tree.get("penstock")
    logic = [node for node in root.body.body if not reexports(node)] if root else []
    return [f"penstock/__init__.py:{node.lineno}: {ast.unparse(node)}" for node in logic]


def reexports(node: ast.stmt) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name.startswith("__")
    return False


def allowed(found: Import) -> bool:
    importer, target = part(found.importer.name), part(found.target)
    if importer is None:
        return True  # the importer itself is reported
    if target is None or found.target == "penstock":
        return False
    if importer == "engines.open" and found.in_function and target.startswith("engines."):
        return True
    return target == importer or target in LAYERS.get(importer, ENGINE_MAY_IMPORT)


def part(module: str) -> str | None:
    """The part of penstock that `module` belongs to, or None when it has no place."""
    _, _, inner = module.partition(".")
    head, _, rest = inner.partition(".")
    if head == "engines":
        return f"engines.{rest.partition('.')[0]}".rstrip(".")
    return head if head in LAYERS else None


def internal_imports(tree: Tree) -> Iterator[Import]:
    for module in tree.values():
        yield from (found for found in imports(module, tree) if found.target.partition(".")[0] == "penstock")


def imports(module: Module, tree: Tree) -> Iterator[Import]:
    """Every import of `module`; `from package import x` counts as package.x where that is a module."""
    for node, in_function in walk(module.body):
        for target in targets(node, module, tree):
            yield Import(module, target, node.lineno, in_function)


def walk(node: ast.AST, in_function: bool = False) -> Iterator[tuple[ast.stmt | ast.expr, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.expr):
            yield child, in_function
        yield from walk(child, in_function or isinstance(child, FUNCTIONS))


def targets(node: ast.AST, module: Module, tree: Tree) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(names=names):
            package = absolute(node, module)
            for alias in names:
                submodule = f"{package}.{alias.name}"
                yield submodule if submodule in tree else package
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            yield name


def absolute(node: ast.ImportFrom, module: Module) -> str:
    if not node.level:
        return node.module or ""
    is_package = module.path.name == "__init__.py"
    parents = module.name.split(".")
    package = parents[: len(parents) - node.level + is_package]
    return ".".join([*package, *([node.module] if node.module else [])])
