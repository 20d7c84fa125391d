"""Sweeps: a grid becomes runs of its own, finished ones are skipped, and one table is gathered."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import END, PARAMETERS, WORK, one_line, write_notebook

from bvlib.cli import main
from bvlib.report import sweep

FAILING = (
    'if scale == 9:\n    from bvlib.core.errors import BvError\n    raise BvError("scale 9 is '
    'too much: take less")\n'
)
MEASURED = END.replace('"measures": {}', '"measures": {"ca_minus_ba": scale}')


@pytest.fixture
def file(world):
    """A sweep over one small notebook that fails at scale 9."""
    write_notebook(
        world / "notebooks" / "01_next.ipynb", FAILING, WORK, MEASURED, parameters=PARAMETERS
    )
    path = world / "grid.yaml"
    path.write_text(
        "profile: tiny\nseeds: [0, 1]\ngrid:\n  scale: [0.5, 2.0]\npoints:\n  - {scale: 2.0}\n"
    )
    return path


def counted(folder):
    return (folder / "count.txt").read_text().split() if (folder / "count.txt").exists() else []


def test_a_grid_is_every_combination_and_equal_points_count_once(file):
    assert sweep.read(file, ["01"]).points == ({"scale": 0.5}, {"scale": 2.0})
    file.write_text("grid:\n  scale: [1.0, 2.0]\n  tasks: [[a], [b]]\n")
    read = sweep.read(file, ["01"], profile="tiny", seeds=[3])
    assert len(read.runs) == 4 and read.runs[0] == ({"scale": 1.0, "tasks": ["a"]}, 3)


@pytest.mark.slow
def test_a_sweep_runs_each_point_once_and_gathers_one_table(file, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = ["run", "01", "--sweep", str(file), "--jobs", "2"]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    assert "4 runs of 01_next on tiny, 0 up to date" in first.output and "4 of 4" in first.output
    rows = pd.read_csv(file.parent / "runs" / "tiny" / "sweep-grid" / "rows.csv")
    assert {(r.scale, r.seed, r.value) for r in rows.itertuples()} == {
        (s, seed, s) for s in (0.5, 2.0) for seed in (0, 1)
    }
    table = pd.read_csv(file.parent / "runs" / "tiny" / "sweep-grid" / "tables" / "01_next.csv")
    assert list(table.columns) == ["parameter scale", "seed", "x"] and len(table) == 4
    again = CliRunner().invoke(main, command)
    assert "4 up to date" in again.output and len(counted(file.parent)) == 4


@pytest.mark.slow
def test_a_point_that_fails_does_not_stop_the_others(file):
    file.write_text("profile: tiny\ngrid:\n  scale: [9, 2.0]\n")
    result = CliRunner().invoke(main, ["run", "01", "--sweep", str(file)])
    assert (
        result.exit_code == 1
        and "bv: scale = 9, seed 0: scale 9 is too much: take less" in result.output
    )
    assert len(counted(file.parent)) == 1


@pytest.mark.slow
def test_a_stopped_sweep_leaves_no_kernel_and_goes_on(file, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    slow = (
        "import os, time\nfrom pathlib import Path\nif scale == 2.0 and not Path('pid').exists():\n"
        "    Path('pid').write_text(str(os.getpid()))\n    time.sleep(300)\n"
    )
    write_notebook(
        file.parent / "notebooks" / "01_next.ipynb", slow, WORK, MEASURED, parameters=PARAMETERS
    )
    command = [sys.executable, "-m", "bvlib.cli", "run", "01", "--sweep", str(file), "--seed", "0"]
    process = subprocess.Popen(
        command,
        cwd=file.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for _ in range(600):
        if (file.parent / "pid").exists() and (file.parent / "pid").read_text():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "goes on from there" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int((file.parent / "pid").read_text()), 0)
    again = CliRunner().invoke(main, ["run", "01", "--sweep", str(file), "--seed", "0"])
    assert (
        again.exit_code == 0 and "1 up to date" in again.output and len(counted(file.parent)) == 2
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("grid: [1]", ("name: [values]",)),
        ("grid:\n  scale: 3", ("`scale`", "list of values")),
        ("a: 1", ("no sweep",)),
        ("grid:\n  scael: [1]", ("scael", "scale")),
        ("gird: 1\npoints: []", ("gird", "grid")),
        ("grid:\n  scale: [1]\nseeds: x", ("seeds", "whole numbers")),
        ("points: [3]", ("a point is",)),
        ("grid: {a: [", ("cannot read",)),
    ],
)
def test_a_wrong_file_is_told_in_one_line(file, text, words):
    file.write_text(text)
    with one_line(*words):
        sweep.read(file, ["01"], profile="tiny")
    assert not counted(file.parent)


def test_parameters_beside_a_sweep_and_a_missing_file_are_refused(file):
    result = CliRunner().invoke(main, ["run", "01", "--sweep", str(file), "-p", "scale=1"])
    assert result.exit_code == 2 and "leave -p and --force out" in result.output
    with one_line("cannot read", "gone.yaml"):
        sweep.read(file.with_name("gone.yaml"), ["01"])
    with one_line("--jobs"):
        sweep.run(sweep.read(file, ["01"]), jobs=0)
    assert not counted(file.parent)
