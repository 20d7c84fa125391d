"""Print a benchmark's rows and write them with device and versions."""

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bvlib.core.device import default_device
from bvlib.files.safe import write_json
from bvlib.run.store import environment


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def gpu() -> dict[str, str]:
    """{"gpu": its name}, nothing where there is none."""
    return {"gpu": torch.cuda.get_device_name(0)} if torch.cuda.is_available() else {}


def write(name: str, rows: list[dict], made: dict | None = None) -> None:
    """`results/<name>.csv` and `.json`; the table is printed. `made`: where the rows were
    measured, if not here."""
    folder, table = Path(__file__).with_name("results"), pd.DataFrame(rows)
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False, float_format="%.4g")
    write_json(
        folder / f"{name}.json",
        made
        or {"environment": environment(default_device().type), "processor": processor(), **gpu()},
    )
    print(table.round(3).to_string(index=False))


def seeds_asked(about: str, usual: str = "10,11,12") -> list[int]:
    """The seeds that ``--seeds`` names; ``about``: the docstring of the script, for its help."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("--seeds", default=usual)
    return [int(seed) for seed in parser.parse_args().seeds.split(",")]


def one_more(run: Callable[[int], Any], within: float) -> float:
    """Seconds of one repetition more of the n that ``run(n)`` makes, beyond what the first takes.

    After a warm-up, over as many as there is time for in ``within`` seconds.
    """

    def took(n: int) -> float:
        began = time.perf_counter()
        run(n)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began

    took(1)
    first = took(1)
    n = max(1, int(within / first))
    return max(took(1 + n) - first, 1e-9) / n
