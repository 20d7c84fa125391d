"""Hands a plan to Snakemake, on this machine or on a cluster, and ends with it."""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psutil

from bvlib.core.errors import BvError, check_choice
from bvlib.files.safe import Taken, locked, write_json
from bvlib.run.notebooks import notebooks_folder, runs_folder
from bvlib.run.points import Plan
from bvlib.run.records import Say
from bvlib.run.watch import Watch
from bvlib.run.workflow import ASKED, FOLDER

LOOK = 0.5  # seconds between two looks at what goes on


def run(plan: Plan, at_once: int | None, on: str | None, say: Say) -> tuple[int, dict[str, str]]:
    """Run what is stale of a plan; see :func:`workflow.run`."""
    how = _cluster(on) if on else _here(plan, at_once)
    with _folder() as folder:
        write_json(folder / ASKED, asdict(plan))
        command = [sys.executable, "-m", "snakemake", "runs", "--snakefile", FOLDER / "Snakefile"]
        command += ["--directory", folder, "--keep-going", "--nocolor", *how]
        with open(folder / "snakemake.log", "w", encoding="utf-8") as log:
            engine = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env={**os.environ, "BVLIB_NOTEBOOKS": str(notebooks_folder())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt reaches it once, from here
            )
            try:
                watch = Watch(plan, folder, say, on)
                while engine.poll() is None:
                    time.sleep(LOOK)
                    watch.look()
                watch.look()
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(engine.pid, signal.SIGINT)
                engine.wait()
                raise
        return watch.outcome()


def usual(threads: int) -> int:
    """How many runs share this machine: one a core, and one more, as a run may wait for what
    another one is training."""
    ours = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    return max(1, len(ours) // threads) + 1


def _here(plan: Plan, at_once: int | None) -> list[str]:
    needs, gpus = plan.resources, Path("/proc/driver/nvidia/gpus")
    threads = needs.threads or 1
    count = at_once or usual(threads)
    room = max(psutil.virtual_memory().available, int(1e9 * needs.memory))
    limits = [f"mem_mb={room // 1_000_000}"]
    limits.append(f"gpu={max(needs.gpus, len(list(gpus.glob('*'))))}")
    return ["--cores", str(count * threads), "--resources", *limits]


def _cluster(on: str) -> list[str]:
    """The profile of a cluster: one of ours by name, or the folder of another one. BvError for any
    other name, and where Snakemake or Slurm is missing."""
    ours = {path.name: path for path in sorted((FOLDER / "profiles").iterdir())}
    if not Path(on, "config.yaml").is_file():
        check_choice("cluster", on, ours)
    profile = ours.get(on, Path(on).resolve())
    if not importlib.util.find_spec("snakemake"):
        raise BvError("--on wants Snakemake: pip install -e '.[workflow]'")
    text = (profile / "config.yaml").read_text(encoding="utf-8")
    if re.search(r"(?m)^executor: slurm", text) and not shutil.which("sbatch"):
        raise BvError("no sbatch here: Slurm wants to be called where jobs are sent from")
    return ["--profile", str(profile)]


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder for one call below `runs/.workflow/`; those of calls that are dead are removed."""
    above = runs_folder() / ".workflow"
    for old in above.glob("*/lock"):
        with contextlib.suppress(Taken), locked(old, patient=False):
            shutil.rmtree(old.parent, ignore_errors=True)
    folder = above / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    with locked(folder / "lock"):
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
