"""What goes on in a call of Snakemake: what its runs write to their logs, how far it is, what
failed."""

import re
import shutil
import subprocess
import time
from pathlib import Path

from bvlib.run.points import Plan
from bvlib.run.records import Say

ASK = 20.0  # seconds between two questions to a cluster


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
        for run in self.plan.stale:
            if run not in self.done:
                self._follow(run)
                if (self.folder / "done" / "runs" / run).exists():
                    self._follow(run)
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
        names = [run for run in names if run in self.last or self.plan.still(run)]
        failed = {run: self.last.get(run, otherwise).removeprefix("bv: ") for run in names}
        return len(self.done) - len(found), failed
