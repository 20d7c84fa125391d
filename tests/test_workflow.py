"""Several runs: a grid becomes runs of its own, finished ones are skipped, tables are gathered.

Side by side through Snakemake, or one after the other, with the same result.
"""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import END, PARAMETERS, WORK, one_line, wait_for, write_notebook

from bvlib.cli import main
from bvlib.run import engine, workflow
from bvlib.run.points import Plan, read_sweep

FAILING = (
    'if scale == 9:\n    from bvlib.core.errors import BvError\n    raise BvError("scale 9 is '
    'too much: take less")\n'
)
MEASURED = END.replace('"measures": {}', '"measures": {"ca_minus_ba": scale}')
SLOW = """import os, time
from pathlib import Path
if scale == 2.0 and not Path('pid').exists():
    Path('pid').write_text(str(os.getpid()))
    time.sleep(300)
"""


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


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.slow)])
def jobs(request):
    """--jobs 1: here, one after the other; --jobs 2: by Snakemake."""
    if request.param == 2:
        pytest.importorskip("snakemake")
    return ["--jobs", str(request.param)]


def bv(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def counted(folder):
    return (folder / "count.txt").read_text().split() if (folder / "count.txt").exists() else []


def tables(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("runs/tiny/sweep-grid/**/*.csv"))}


# What is asked for


def test_a_grid_is_every_combination_and_equal_points_count_once(file):
    assert read_sweep(file, ["01"]).points == [{"scale": 0.5}, {"scale": 2.0}]
    file.write_text("grid:\n  scale: [1.0, 2.0]\n  tasks: [[a], [b]]\n")
    read = read_sweep(file, ["01"], profile="tiny", seeds=[3])
    assert len(read.runs) == 4 and read.runs[0] == ({"scale": 1.0, "tasks": ["a"]}, 3)
    assert len(read.jobs) == 4 and all(name.startswith("tiny/seed-3+") for name in read.jobs)


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
        read_sweep(file, ["01"], profile="tiny")
    assert not counted(file.parent)


def test_what_cannot_be_is_refused_before_anything_runs(file):
    for words, said in {
        ("--sweep", file, "-p", "scale=1"): "leave -p and --force out",
        ("--sweep", file, "--jobs", "0"): "--jobs",
        ("--sweep", file, "--on", "slrum"): "unknown cluster 'slrum': did you mean 'slurm'?",
    }.items():
        result = bv("run", "01", *words)
        assert result.exit_code == 2 and said in result.output
    with one_line("cannot read", "gone.yaml"):
        read_sweep(file.with_name("gone.yaml"), ["01"])
    assert not counted(file.parent)


def test_the_workflow_refuses_what_the_command_line_refuses(world):
    asked = {"notebooks": ["01"], "profile": "tiny", "points": [{"scale": 0.5}]}
    assert list(Plan.of(asked).jobs) == list(Plan(["01"], "tiny", [0], [{"scale": 0.5}]).jobs)
    for wrong, words in [
        ({"profil": "tiny"}, "key of the workflow 'profil': did you mean 'profile'?"),
        ({"profile": "tyni"}, "unknown profile 'tyni'"),
        ({"points": [{"sclae": 1}]}, "unknown parameter 'sclae'"),
        ({"notebooks": ["01_nxet"]}, "unknown notebook '01_nxet'"),
    ]:
        with one_line(words):
            Plan.of(asked | wrong)


def test_a_plan_as_plain_values_is_the_same_plan(world):
    plan = Plan(("01",), "tiny", (0, 1), ({"scale": 0.5}, {"tasks": ["a"]}), "grid", True)
    again = Plan.of(json.loads(json.dumps(dataclasses.asdict(plan))))
    assert list(again.jobs) == list(plan.jobs) and again.force and again.name == "grid"
    assert plan.stale == dict.fromkeys(plan.jobs, "not run yet")
    assert plan.title(next(iter(plan.jobs))) == "01_next, scale = 0.5, seed 0"


def test_a_dry_run_says_what_would_run_and_why(world):
    assert bv("run", "00", "--profile", "tiny").exit_code == 0
    shutil.rmtree(world / "store")
    result = bv("run", "--profile", "tiny", "--dry-run")
    said = result.output.splitlines()
    assert said[0].startswith("00_start: missing or changed: 00_start-")
    assert said[1] == "01_next: not run yet" and said[2].startswith("2 of 2 to run")
    assert counted(world) == ["00_start"]


# Running


def test_a_sweep_runs_each_point_once_and_gathers_one_table(file, jobs):
    command = ["run", "01", "--sweep", file, *jobs]
    first = bv(*command)
    assert first.exit_code == 0 and "4 run, 0 up to date" in first.output, first.output
    rows = pd.read_csv(file.parent / "runs" / "tiny" / "sweep-grid" / "rows.csv")
    assert {(r.scale, r.seed, r.value) for r in rows.itertuples()} == {
        (s, seed, s) for s in (0.5, 2.0) for seed in (0, 1)
    }
    table = pd.read_csv(file.parent / "runs" / "tiny" / "sweep-grid" / "tables" / "01_next.csv")
    assert list(table.columns) == ["parameter scale", "seed", "x"] and len(table) == 4
    again = bv(*command)
    assert "0 run, 4 up to date" in again.output and len(counted(file.parent)) == 4


def test_a_point_that_fails_does_not_stop_the_others(file, jobs):
    file.write_text("profile: tiny\ngrid:\n  scale: [9, 2.0, 3.0]\n")
    result = bv("run", "01", "--sweep", file, *jobs)
    said = "bv: 01_next, scale = 9: scale 9 is too much: take less"
    assert result.exit_code == 1 and said in result.output.replace(", seed 0", ""), result.output
    assert len(counted(file.parent)) == 2 and "2 run, 0 up to date" in result.output


def start(file, *jobs):
    """`bv run` of the sweep in a process of its own, whose second point waits in a kernel."""
    write_notebook(
        file.parent / "notebooks" / "01_next.ipynb", SLOW, WORK, MEASURED, parameters=PARAMETERS
    )
    command = [sys.executable, "-m", "bvlib.cli", "run", "01", "--sweep", str(file), "--seed", "0"]
    process = subprocess.Popen(
        [*command, *jobs],
        cwd=file.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pid, ended = file.parent / "pid", "runs/tiny/seed-*/.records/*.json"
    wait_for(lambda: pid.exists() and pid.read_text() and [*file.parent.glob(ended)], process)
    return process, int(pid.read_text())


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_stopped_sweep_leaves_no_kernel_and_goes_on(file, jobs):
    process, kernel = start(file, *jobs)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "goes on from there" in said
    wait_for(lambda: gone(kernel))
    again = bv("run", "01", "--sweep", file, "--seed", "0", *jobs)
    assert again.exit_code == 0 and len(counted(file.parent)) == 2, again.output
    assert "1 run, 1 up to date" in again.output


@pytest.mark.slow
def test_what_a_killed_workflow_leaves_stops_nobody(file):
    pytest.importorskip("snakemake")
    process, kernel = start(file, "--jobs", "2")
    [folder] = (file.parent / "runs" / ".workflow").iterdir()
    process.kill()
    process.communicate()
    os.kill(kernel, signal.SIGKILL)
    again = bv("run", "01", "--sweep", file, "--seed", "0", "--jobs", "2")
    assert again.exit_code == 0 and len(counted(file.parent)) == 2, again.output
    assert bv("run", "01", "--sweep", file, "--seed", "1", "--jobs", "2").exit_code == 0
    assert not folder.exists()


@pytest.mark.slow
def test_both_ways_give_the_same_tables(file, tmp_path_factory):
    pytest.importorskip("snakemake")
    assert bv("run", "01", "--sweep", file, "--jobs", "1").exit_code == 0
    first = tables(file.parent)
    for name in ("runs", "store"):
        shutil.rmtree(file.parent / name)
    assert bv("run", "01", "--sweep", file, "--jobs", "3").exit_code == 0
    assert first == tables(file.parent) and len(first) == 2


@pytest.mark.slow
def test_a_lost_artefact_remakes_what_hangs_on_it_alone(world):
    pytest.importorskip("snakemake")
    command = ["run", "--profile", "tiny", "--seeds", "0,1", "--jobs", "2"]
    assert "4 run, 0 up to date" in bv(*command).output
    assert "0 run, 4 up to date" in bv(*command).output
    lost = sorted((world / "store" / "json").glob("*.value.json"))[0]
    lost.unlink()
    result = bv(*command)
    assert "1 run, 3 up to date" in result.output and lost.exists(), result.output


@pytest.mark.slow
def test_two_calls_at_once_in_one_clone_share_the_work(world):
    pytest.importorskip("snakemake")
    command = [sys.executable, "-m", "bvlib.cli", "run", "--profile", "tiny", "--seeds", "0,1"]
    pair = [
        subprocess.Popen(command, cwd=world, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], said
    assert sorted(counted(world)) == ["00_start"] * 2 + ["01_next"] * 2


@pytest.mark.slow
def test_snakemake_by_hand_reads_study_json(world):
    pytest.importorskip("snakemake")
    (world / "call").mkdir()
    asked = {"notebooks": ["00"], "profile": "tiny", "seeds": [0, 1]}
    (world / "call" / "study.json").write_text(json.dumps(asked))
    snakefile = Path(workflow.FOLDER) / "Snakefile"
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--cores", "2"]
    command = [*map(str, command), "--directory", str(world / "call")]
    for expected in (2, 2):
        found = subprocess.run(command, cwd=world, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        assert len(counted(world)) == expected
    assert "Headline" in found.stdout


def test_a_run_that_another_call_ended_first_did_not_fail(tmp_path):
    """Two calls at once: both plan b; when Snakemake of the second looks, b is up to date."""
    logs = {"a": "a: done in 2 s\n", "c": "bv: too much\n"}
    (tmp_path / "logs").mkdir()
    (tmp_path / "snakemake.log").write_text("")
    (tmp_path / "done" / "runs").mkdir(parents=True)
    (tmp_path / "done" / "runs" / "a").touch()
    for name, text in logs.items():
        (tmp_path / "logs" / f"{name}.log").write_text(text)
    names = ["a", "b", "c", "d"]
    plan = SimpleNamespace(
        stale=dict.fromkeys(names, "no record"),
        why_stale={**dict.fromkeys(names, "no record"), "b": ""}.get,
        seconds=dict.fromkeys(names, 60),
        runs=[1, 2],
        title=str,
    )
    watch = engine.Watch(plan, tmp_path, lambda line: None, None)
    watch.look()
    failed = {"c": "too much", "d": "Snakemake stopped without a word"}
    assert watch.outcome() == (1, failed)


def test_how_many_runs_share_a_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert engine.usual(1) == 9 and engine.usual(4) == 3 and engine.usual(16) == 2


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing():
    pytest.importorskip("snakemake")
    script = Path(__file__).parents[1] / "benchmarks" / "kills.py"
    found = subprocess.run(
        [sys.executable, str(script), "--kills", "5", "--seed", "1"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "'made again': 0" in found.stdout
