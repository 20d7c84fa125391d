"""Mutated input of every kind is right or refused in one line (a sixth of the committed run)."""

import subprocess
import sys
from pathlib import Path

import pandas as pd

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


def test_mutated_input_is_right_or_refused_in_one_line():
    command = [sys.executable, str(SCRIPT), "--cases", "50", "--seed", "1000"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_committed_run_found_nothing_else():
    table = pd.read_csv(SCRIPT.with_name("results") / "fuzz.csv")
    assert list(table) == ["door", "right", "refused"]
    assert table[["right", "refused"]].to_numpy().sum() == 300
