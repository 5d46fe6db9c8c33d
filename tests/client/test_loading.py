import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.loading import AppNotFound, load_app

APP = "from penstock import Penstock\napp = Penstock('memory://')\nother = 7\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def complaint(target: str) -> str:
    with pytest.raises(AppNotFound) as caught:
        load_app(target)
    return str(caught.value)


def test_an_application_is_loaded_from_the_working_directory(folder: Path) -> None:
    (folder / "shop_a.py").write_text(APP)
    assert load_app("shop_a:app").tasks == {}


def test_an_application_is_loaded_from_a_file(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "shop_b.py").write_text(f"import shop_c\n{APP}@app.task\ndef send() -> None: ...\n")
    (folder / "inner" / "shop_c.py").write_text("")
    assert list(load_app("inner/shop_b.py:app").tasks) == ["shop_b.send"]


def test_a_target_without_a_colon_is_told_to_have_one() -> None:
    assert "as shop:app" in complaint("shop")


def test_a_missing_module_is_named() -> None:
    assert "no module 'no_such_shop'" in complaint("no_such_shop:app")


def test_a_missing_file_is_named() -> None:
    assert "'shop/none.py'" in complaint("shop/none.py:app")


def test_a_path_given_as_a_module_is_told_to_be_a_file() -> None:
    assert "path/to/file.py" in complaint("inner/shop:app")


def test_a_relative_module_is_refused() -> None:
    assert "full name" in complaint(".shop:app")


def test_what_the_module_itself_misses_passes_through(folder: Path) -> None:
    (folder / "shop_d.py").write_text("import no_such_thing\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_thing"):
        load_app("shop_d:app")


def test_a_missing_attribute_is_answered_with_what_there_is(folder: Path) -> None:
    (folder / "shop_e.py").write_text(APP)
    told = complaint("shop_e:application")
    assert "has no 'application'" in told
    assert "shop_e:app" in told


def test_what_is_no_application_is_refused(folder: Path) -> None:
    (folder / "shop_f.py").write_text(APP)
    assert "is a int, not a Penstock" in complaint("shop_f:other")


def test_a_module_without_an_application_is_told_so(folder: Path) -> None:
    (folder / "shop_g.py").write_text("x = 1\n")
    assert "holds no Penstock" in complaint("shop_g:x")
