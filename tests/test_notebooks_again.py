"""A few notebooks run again: the same seed, papermill alone, a stored result taken away."""

import subprocess
import sys

import pytest
from test_notebooks import NAMES, all_of, numbers, path_of, run

from bvlib.run import notebooks

FEW = NAMES[:2]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Two notebooks: trainings, triggers, merges and curves are in them."""
    yield from all_of(FEW, tmp_path_factory.mktemp("few"))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_tables_bit_by_bit(few, tmp_path, monkeypatch):
    monkeypatch.setenv("BVLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BVLIB_STORE", str(tmp_path / "store"))
    records = run(FEW)
    assert all(record.reason for record in records) and records[0].out != few.out
    made = {path for name in FEW for path in few.results[name]["outputs"]}
    first, again = (
        {path: content for path, content in numbers(few.out).items() if path in made},
        numbers(records[0].out),
    )
    assert (
        first.keys() == again.keys()
        and [path for path in first if first[path] != again[path]] == []
    )


@pytest.mark.slow
def test_papermill_itself_runs_a_notebook(few, tmp_path):
    name = FEW[1]
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(path_of(name)),
        str(tmp_path / "out.ipynb"),
        "--no-progress-bar",
        "-p",
        "profile",
        "smoke",
        "-p",
        "out",
        str(tmp_path),
    ]
    done = subprocess.run(
        command, cwd=notebooks.root_folder(), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found = numbers(tmp_path)
    assert found and found == {
        path: content
        for path, content in numbers(few.out).items()
        if path in few.results[name]["outputs"]
    }


@pytest.mark.slow
def test_a_deleted_weight_alone_is_made_again(few):
    def times():
        return {path: path.stat().st_mtime_ns for path in few.store.rglob("*.safetensors")}

    victim = sorted(few.store.glob("weights/clean-shapes-*.safetensors"))[0]
    users = [
        name
        for name in FEW
        if victim.name
        in {entry["path"].rpartition("/")[2] for entry in few.results[name]["artefacts"]}
    ]
    before, bits, tables = times(), victim.read_bytes(), numbers(few.out)
    victim.unlink()
    assert [record.name for record in run(FEW) if record.reason] == users[:1]
    after = times()
    assert {path for path in after if after[path] != before.get(path)} == {
        victim
    } and after.keys() == before.keys()
    assert victim.read_bytes() == bits and numbers(few.out) == tables
