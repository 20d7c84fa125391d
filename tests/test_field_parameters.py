"""Cases from the field, and their neighbours: parameters, sweeps, folders of the environment."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import one_line

from bvlib.cli import main as bv
from bvlib.cli.options import parse_value
from bvlib.run import notebooks, records
from bvlib.run.lab import Lab
from bvlib.run.points import read_sweep
from bvlib.run.store import Store


def test_own_data_is_stale_when_it_was_prepared_anew(world, monkeypatch):
    (world / "data").mkdir()
    monkeypatch.chdir(world)
    [job] = records.jobs(["00"], "tiny", 0, {"tasks": ["mine", "b"]})
    before = records.fingerprint(job)["data"]
    (world / "data" / "mine.npz").write_bytes(b"1")
    made = records.fingerprint(job)["data"]
    (world / "data" / "other.npz").write_bytes(b"1")
    assert before == {} and list(made) == ["mine.npz"] == list(records.fingerprint(job)["data"])
    (world / "data" / "mine.npz").write_bytes(b"22")
    assert records.fingerprint(job)["data"] != made


@pytest.mark.parametrize("named", ["mystore", "mystore/", "~/mystore", "./a/../mystore"])
def test_folders_of_the_environment_are_those_seen_from_where_bv_is_called(
    tmp_path, monkeypatch, named
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BVLIB_STORE", named)
    notebooks.settle_folders()
    assert notebooks.store_folder().is_absolute()
    assert notebooks.store_folder().resolve() == tmp_path / "mystore"


@pytest.mark.parametrize("place", ["file", "file/below", "broken"])
def test_a_store_that_is_no_folder_is_told_in_one_line(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    with one_line("cannot write", place, "name another folder"):
        Store(tmp_path / place).get("json", "x", {}, lambda: 1, recipes=["world:toy/1"])


def test_plugins_and_profiles_of_the_environment(world, monkeypatch):
    (world / "mine.py").write_text("")
    monkeypatch.chdir(world)
    monkeypatch.setenv("BVLIB_PLUGINS", os.pathsep.join(["mine.py", "~/other.py"]))
    notebooks.settle_folders()
    assert notebooks.plugin_files() == [world / "mine.py", Path("~/other.py").expanduser()]
    monkeypatch.setenv("BVLIB_PROFILES", str(world / "mine.py"))
    with one_line("no profiles in", "mine.py", "BVLIB_PROFILES"):
        records.jobs(["00"], "tiny", 0)


@pytest.mark.parametrize(
    "value, words",
    [
        ({"seed": 1.7}, "parameter seed wants int, got 1.7"),
        ({"scale": "0.5"}, "parameter scale wants float, got '0.5'"),
        ({"scale": "false"}, "parameter scale wants float"),
        ({"seed": -1}, "seed wants a whole number of at least 0, got -1"),
        ({"seed": True}, "parameter seed wants int, got True"),
        ({"tasks": "[]"}, "parameter tasks is an empty list"),
        ({"tasks": "[x, y]"}, ["x", "y"]),
        ({"tasks": "['x', \"y\",]"}, ["x", "y"]),
    ],
)
def test_papermill_alone_is_as_strict_as_bv_run(world, value, words):
    usual = {"profile": "tiny", "seed": 0, "out": "o", "scale": 1.0, "tasks": ["a"]}
    if isinstance(words, list):
        assert notebooks.parameters_of("00", usual | value)["tasks"] == words
    else:
        with one_line(words):
            notebooks.parameters_of("00", usual | value)


@pytest.mark.parametrize(
    "given, words",
    [
        ("coefficient=1e30", "coefficient wants a finite number of at least -100 and at most 100"),
        ("coefficient=-1e30", "got -1e+30"),
        ("coefficient=.inf", "parameter coefficient wants float, got '.inf'"),
        ("coefficients='1e-1;3e-1'", "coefficients[0] wants a finite number"),
        ("coefficients=[0.1,nan]", "coefficients[1] wants a finite number"),
        ("coefficients=[0.1,1e30]", "coefficients[1] wants a finite number"),
        ("coefficients=[]", "parameter coefficients is an empty list"),
        ("tasks=", "parameter tasks is an empty list"),
        ("tasks=[digits,digits]", "task 'digits' is merged with itself"),
        ("tasks=[shapes,handwritten]", "unknown adversary among the merged tasks 'digits'"),
        ("adversary=Digits", "did you mean 'digits'?"),
        ("target_class=1.0", "parameter target_class wants int"),
        ("attack=badnet", "did you mean 'badnets'?"),
        ("merging=tie", "did you mean 'ties'?"),
        ("show_all=false", ""),
        ("show_all='false'", "parameter show_all wants bool"),
        ("tasks='[digits, shapes]'", ""),
        ("coefficients=0.1,0.3", ""),
    ],
)
def test_a_parameter_is_refused_before_a_kernel_starts(given, words):
    name = "00" if given.startswith("show_all") else "01"
    command = ["run", name, "--profile", "smoke", "--dry-run", "-p", given]
    found = CliRunner().invoke(bv, command)
    assert found.exit_code == (2 if words else 0), found.output
    assert words in found.output and (not words or found.output.count("\n") == 1)


def test_what_a_notebook_sets_itself_is_never_refused():
    for item in notebooks.every():
        given = {name: each.default for name, each in item.parameters.items()}
        assert notebooks.parameters_of(item.name, given | {"profile": "smoke"})


def test_a_base_in_a_file_is_one_seen_from_where_bv_is_called(tmp_path, monkeypatch):
    (tmp_path / "mine.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    assert parse_value("mine.safetensors") == str(tmp_path / "mine.safetensors")
    assert parse_value("other.safetensors") == "other.safetensors"


def test_a_key_that_is_there_twice_is_no_matter_of_order(world):
    (world / "grid.yaml").write_text("profile: tiny\ngrid:\n  scale: [1]\n  scale: [2]\n")
    with one_line("grid.yaml", "the key 'scale' is there twice"):
        read_sweep(world / "grid.yaml", ["01"])


def test_numbers_without_a_point_in_a_sweep_are_numbers(world):
    (world / "grid.yaml").write_text("profile: tiny\ngrid:\n  scale: [1e-1, 5E2, 2, .5e0]\n")
    read = read_sweep(world / "grid.yaml", ["01"])
    assert [point["scale"] for point in read.points] == [0.1, 500.0, 2, 0.5]


@pytest.mark.parametrize(
    "content, words",
    [
        ("grid: {scale: [1]}  # für".encode("cp1252"), "can't decode"),
        ("grid: {scale: [1]}  # für".encode("utf-16"), "can't decode"),
        (b"\tgrid: {scale: [1]}", "found character '\\t' that cannot start any token"),
        (b"grid: {scale: [1]}\0", "special characters are not allowed"),
    ],
)
def test_a_sweep_that_cannot_be_read_is_told_in_one_line(world, content, words):
    (world / "grid.yaml").write_bytes(content)
    with one_line("cannot read the sweep", "grid.yaml", words):
        read_sweep(world / "grid.yaml", ["01"])


def test_copies_and_drafts_of_notebooks_are_let_alone(world):
    (world / "notebooks" / "Untitled.ipynb").write_text("{")
    (world / "notebooks" / "Untitled3.ipynb").write_text("{")
    (world / "notebooks" / "00_start-Copy1.ipynb").write_text("{")
    assert [each.name for each in notebooks.find(None)] == ["00_start", "01_next"]
    assert [each.name for each in notebooks.find(["00"])] == ["00_start"]


def test_a_trigger_that_is_larger_than_the_images_is_refused_before_anything_is_trained(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("BVLIB_STORE", str(tmp_path))
    with one_line("1000000×1000000 px is larger than the image of 32×32 px"):
        Lab.start("01_badmerging", profile="smoke", trigger_size=10**6, out=str(tmp_path / "out"))
    assert not [*tmp_path.rglob("clean-*")]
