from pathlib import Path

import pytest

from penstock.model.errors import SettingsInvalid
from penstock.settings import OPTIONS, Settings, find_file, load


def faults_of(arguments: dict[str, object], environ: dict[str, str], file: Path | None = None) -> tuple[str, ...]:
    with pytest.raises(SettingsInvalid) as caught:
        load(arguments, environ, file)
    return caught.value.faults


def test_every_option_has_a_field_and_every_field_an_option() -> None:
    assert [option.name for option in OPTIONS] == [name for name in Settings.__struct_fields__ if name != "sources"]


def test_written_defaults_are_the_defaults_of_the_fields() -> None:
    for option in OPTIONS:
        if option.default not in ("none", "all", "CPUs"):
            assert option.read(option.default) == getattr(Settings(), option.name), option.name


def test_arguments_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text('slots = 1\nlease = "1m"\nchildren = 7\n')
    found = load({"slots": 3, "lease": None}, {"PENSTOCK_SLOTS": "2", "PENSTOCK_LEASE": "2m"}, file)
    assert (found.slots, found.lease, found.children, found.coroutines) == (3, 120.0, 7, 100)
    assert found.source("slots") == "argument"
    assert found.source("lease") == "$PENSTOCK_LEASE"
    assert found.source("children") == str(file)
    assert found.source("coroutines") == "default"


def test_processes_default_to_the_cpus_this_process_may_use() -> None:
    assert load({}, {}, None).processes >= 1


def test_all_faults_are_told_at_once_with_value_source_and_way_out() -> None:
    found = faults_of({"slots": 0, "log_level": "loud"}, {"PENSTOCK_LEASE": "soon", "PENSTOCK_BURST": "perhaps"})
    assert len(found) == 4
    assert any("slots = 0 (argument) is no such count; give a whole number from 1 to 1,000" in fault for fault in found)
    assert any("loud" in fault and "warning" in fault for fault in found)
    assert any("$PENSTOCK_LEASE" in fault and "'soon'" in fault for fault in found)
    assert any("$PENSTOCK_BURST" in fault and "true or false" in fault for fault in found)


def test_misspelt_options_are_refused_with_what_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text("max_job = 7\n")
    found = faults_of({"slot": 1}, {"PENSTOCK_MAX_PAYLOD": "1"}, file)
    assert [fault.rpartition("Did you mean ")[2] for fault in sorted(found)] == [
        "PENSTOCK_MAX_PAYLOAD?",
        "max_jobs?",
        "slots?",
    ]


def test_variables_of_others_with_the_prefix_are_left_alone() -> None:
    assert load({}, {"PENSTOCK_TEST_POSTGRES_DSN": "x"}, None).source("url") == "default"


@pytest.mark.parametrize("url", ["redis//user:secret@host", "redis//host?password=secret"])
def test_a_url_that_may_hold_a_secret_is_not_shown_in_a_fault(url: str) -> None:
    (fault,) = faults_of({}, {"PENSTOCK_URL": url})
    assert "secret" not in fault


def test_a_url_without_a_secret_is_shown_in_its_fault() -> None:
    (fault,) = faults_of({"url": "shop.db"}, {})
    assert fault == "url (argument): 'shop.db' is no URL of a store; write sqlite:///shop.db."


@pytest.mark.parametrize("option", ["processes", "slots", "children", "coroutines"])
def test_counts_that_would_take_a_machine_down_are_refused(option: str) -> None:
    """A bound holds on every machine, and a sensible number is below it on the smallest."""
    assert getattr(load({option: 200}, {}, None), option) == 200
    (fault,) = faults_of({option: 10_000_000}, {})
    assert fault.startswith(f"{option} = 10000000 (argument) is no such count; give a whole number from 1 to ")


@pytest.mark.parametrize(
    ("text", "size"), [("512M", 512 << 20), ("2G", 2 << 30), ("1k", 1024), (4096, 4096), ("1.5K", 1536)]
)
def test_sizes_are_read_in_bytes(text: object, size: int) -> None:
    assert load({"max_memory": text}, {}, None).max_memory == size


@pytest.mark.parametrize("value", ["-1", "lots", True, 0, "1X"])
def test_what_is_no_size_is_refused(value: object) -> None:
    assert "is no size" in faults_of({"max_memory": value}, {})[0]


def test_queues_are_names_in_order_with_weights_if_they_have_any() -> None:
    assert load({"queues": "mail:5, default"}, {}, None).queues == ("mail:5", "default")
    assert load({"queues": ["b", "a"]}, {}, None).queues == ("b", "a")
    assert load({}, {}, None).queues is None


@pytest.mark.parametrize("queues", ["a b", "a,,b", "a:0", "a,a:2", []])
def test_queues_that_cannot_be_are_refused(queues: object) -> None:
    assert len(faults_of({"queues": queues}, {})) == 1


def test_a_file_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text("slots = 1\n")
    file.chmod(0o666)
    assert f"chmod o-w {file}" in faults_of({}, {}, file)[0]


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text("slots = \n")
    assert str(file) in faults_of({}, {}, file)[0]


def test_the_nearest_file_above_is_found(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.penstock]\nslots = 5\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.other]\n")
    assert find_file(below) == tmp_path / "pyproject.toml"
    assert load({}, {}, find_file(below)).slots == 5
    (tmp_path / "a" / "penstock.toml").write_text("slots = 6\n")
    assert load({}, {}, find_file(below)).slots == 6


def test_a_project_file_whose_entry_is_no_table_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool]\npenstock = 7\n")
    assert "write [tool.penstock]" in faults_of({}, {}, file)[0]


def test_empty_variables_say_nothing() -> None:
    variables = {f"PENSTOCK_{option.name.upper()}": "" for option in OPTIONS}
    assert load({}, variables, None) == load({}, {}, None)
