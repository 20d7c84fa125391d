"""The workflow on a real Slurm, where there is one: the tables of a local run, byte for byte."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from helpers import wait_for

from bvlib.run import workflow

RUNNING = shutil.which("sinfo") and not subprocess.run(["sinfo"], capture_output=True).returncode
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not RUNNING, reason="no Slurm here (BVLIB_SLURM=1 .ci/run sets one up)"),
]
SWEEP = "profile: smoke\ngrid:\n  coefficient: [0.2, 0.3]\n  target_class: [1, 3]\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep of four points, and a profile for a Slurm without accounting."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "grid.yaml").write_text(SWEEP)
    text = (workflow.FOLDER / "profiles" / "slurm" / "config.yaml").read_text()
    text += "slurm-no-account: true\nslurm-status-command: squeue\n"
    text += "slurm-init-seconds-before-status-checks: 5\n"
    (folder / "mine").mkdir()
    (folder / "mine" / "config.yaml").write_text(text)
    return folder


def start(folder, where, *words):
    environment = {"BVLIB_RUNS": str(folder / where), "BVLIB_STORE": str(folder / f"{where}-store")}
    command = [sys.executable, "-m", "bvlib.cli", "run", "00", "--sweep", str(folder / "grid.yaml")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen([*command, *words], env=env, **pipes)


def ended(process):
    said = process.communicate(timeout=900)[0]
    return process.returncode, said


def tables(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("sweep-grid/**/*.csv"))
    }


def test_a_sweep_gives_the_same_tables_with_one_job_with_two_and_on_slurm(folder):
    for where, jobs in (("alone", "1"), ("here", "2")):
        code, said = ended(start(folder, where, "--jobs", jobs))
        assert code == 0, said
    code, said = ended(start(folder, "there", "--on", str(folder / "mine")))
    assert code == 0 and "4 run, 0 up to date" in said, said
    alone, here, there = (tables(folder / where) for where in ("alone", "here", "there"))
    assert alone == here == there and len(here) > 2


def test_a_cancelled_job_runs_again_on_the_next_call(folder):
    process = start(folder, "cancelled", "--on", str(folder / "mine"))
    wait_for(lambda: queue("RUNNING"), process, seconds=120)
    time.sleep(3)
    subprocess.run(["scancel", queue("RUNNING")[0]], check=True)
    code, said = ended(process)
    assert code == 1 and "3 run, 0 up to date" in said, said
    code, said = ended(start(folder, "cancelled", "--on", str(folder / "mine")))
    assert code == 0 and "1 run, 3 up to date" in said, said


def test_a_drained_node_is_told_in_one_line(folder):
    node = subprocess.run(
        ["sinfo", "-h", "-o", "%n"], capture_output=True, text=True
    ).stdout.split()[0]
    drain = ["scontrol", "update", f"nodename={node}"]
    subprocess.run([*drain, "state=drain", "reason=test"], check=True)
    try:
        process = start(folder, "drained", "--on", str(folder / "mine"))
        lines = iter(process.stdout.readline, "")
        told = next(line for line in lines if line.startswith("slurm: "))
        assert re.search("drain|DRAIN|down|DOWN|not available", told), told
    finally:
        subprocess.run([*drain, "state=resume"], check=True)
    code, said = ended(process)
    assert code == 0, said


def queue(state):
    ask = ["squeue", "--me", "-h", f"--states={state}", "-o", "%i"]
    return subprocess.run(ask, capture_output=True, text=True).stdout.split()
