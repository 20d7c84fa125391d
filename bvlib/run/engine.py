"""Hands a plan to Snakemake, on this machine or on a cluster, tells what its runs write to their
logs and how far it is, and ends with it."""

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
from bvlib.run.workflow import ASKED, FOLDER

LOOK = 0.5  # seconds between two looks at what goes on
ASK = 20.0  # seconds between two questions to a cluster


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


class Watch:
    """Tells what the runs of a call write to their logs, and how far it is."""

    def __init__(self, plan: Plan, folder: Path, say: Say, on: str | None) -> None:
        self.plan, self.folder, self.say, self.on = plan, folder, say, on
        self.read: dict[str, int] = {}  # {run: how many lines of its log were told}
        self.last: dict[str, str] = {}  # {run: the last line of its log}
        self.since: dict[str, float] = {}  # {run: when it was first seen}
        self.done: set[str] = set()
        self.began = self.asked = time.monotonic()
        self.waits = ""

    def look(self) -> None:
        """Tell what is new."""
        for run in [run for run in self.plan.stale if run not in self.done]:
            ended = (self.folder / "done" / "runs" / run).exists()  # so its log is whole
            self._follow(run)
            if ended:
                self.done.add(run)
                self._tell()
        if self.on and shutil.which("squeue") and time.monotonic() - self.asked > ASK:
            self._ask()

    def _follow(self, run: str) -> None:
        path = self.folder / "logs" / f"{run}.log"
        if not path.exists():
            return
        self.since.setdefault(run, time.monotonic())
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]  # whole ones
        alone = len(self.plan.runs) == 1  # of a sweep, the lines inside of runs are too many
        for line in lines[self.read.get(run, 0) :]:
            self.last[run] = line.rstrip() or self.last.get(run, "")
            if line.startswith("  ") and alone:
                self.say(f"{self.plan.jobs[run].name[:2]}{line.rstrip()}")
        self.read[run] = len(lines)

    def _tell(self) -> None:
        now, title, cost = time.monotonic(), self.plan.title, self.plan.seconds
        running = [run for run in self.since if run not in self.done]
        made = sum(cost[run] for run in self.done)
        made += sum(min(cost[run], now - self.since[run]) for run in running)
        whole = sum(cost[run] for run in self.plan.stale)
        left = (now - self.began) * (whole - made) / made
        said = [f"{len(self.done)} of {len(self.plan.stale)} done"]
        if running:
            each = [f"{title(run)} since {now - self.since[run]:.0f} s" for run in running]
            said.append(f"running {'; '.join(each)}")
        if len(self.done) < len(self.plan.stale):
            said.append(f"about {left / 60:.0f} min still" if left > 90 else "under 2 min still")
        self.say(" · ".join(said))

    def _ask(self) -> None:
        """Tell why jobs wait in the cluster's queue, when that is new."""
        self.asked = time.monotonic()
        ask = ["squeue", "--me", "--noheader", "--states=PENDING", "--format=%r"]
        answer = subprocess.run(ask, capture_output=True, text=True)
        waits = "; ".join(sorted(set(answer.stdout.splitlines())))
        if waits and waits != self.waits:
            self.say(f"slurm: jobs wait: {waits}")
        self.waits = waits

    def outcome(self) -> tuple[int, dict[str, str]]:
        """How many ran, and {run: the last line of its log, or what Snakemake says} of those that
        did not end.

        A run that another call ended before Snakemake looked at it did not fail.
        """
        text = (self.folder / "snakemake.log").read_text(encoding="utf-8", errors="replace")
        told = [line.strip() for line in text.splitlines() if re.search("[Ee]rror", line)]
        otherwise = told[-1] if told else "Snakemake stopped without a word"
        found = [run for run in self.done if self.last.get(run, "").endswith(": up to date")]
        names = [run for run in self.plan.stale if run not in self.done]
        names = [run for run in names if run in self.last or self.plan.why_stale(run)]
        failed = {run: self.last.get(run, otherwise).removeprefix("bv: ") for run in names}
        return len(self.done) - len(found), failed
