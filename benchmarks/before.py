"""A cold run by the code before issue "From laptop to cluster" and by this code: what is no longer
computed twice, what both cores side by side give, and what the recipes of today give.

Four ways, each in a scratch clone, the first three with the same base, images and settings:

- before: the last commit before predictions were kept, one notebook after the other, two threads;
- in turn: this code, one notebook after the other, two threads;
- side by side: this code through the workflow, one thread each;
- as shipped: the same with the base and the settings that the profile has now: `make reproduce`.

python benchmarks/before.py --ways before "side by side" "as shipped"   # 45 to 90 minutes, idle
python benchmarks/before.py 00 01 02                                    # 50 minutes
python benchmarks/before.py 00 --profile smoke                          # a rehearsal

"times faster" is against the first way. A run of some notebooks goes to a file of its own, such as
`before_00_01_02`; only those of mini are kept.

Needs the extra `workflow`, and a clone with its history.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml
from report import write

from bvlib.run import notebooks, settings

ROOT = Path(__file__).parents[1]
BEFORE = "0ecb330"
NAMES = {"toy": "small", "toy-b": "small-b"}  # the bases of that time, by their names now
WAYS = ["before", "in turn", "side by side", "as shipped"]
SAME = ("sizes", "trigger", "train", "coefficient", "trigger_size", "alpha", "density")


def clone(folder: Path, commit: str) -> Path:
    """The project at a commit."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "checkout", "-q", commit], cwd=folder, check=True)
    return folder


def as_before(now: Path, before: Path, profile: str) -> None:
    """Give a profile of the clone ``now`` the base and the settings that it had ``before``."""
    place = f"bvlib/run/profiles/{profile}.yaml"
    old = yaml.safe_load((before / place).read_text(encoding="utf-8"))
    told = {key: old[key] for key in SAME} | {"base": NAMES[old["base"]]}
    new = {**settings.load(profile), **told, "other_base": NAMES[old["other_base"]]}
    (now / place).write_text(yaml.safe_dump(new), encoding="utf-8")


def seconds(
    code: Path, scratch: Path, calls: list[list[str]], profile: str, threads: int
) -> dict[str, float]:
    """Seconds of these calls of `bv run` from nothing, and the processor seconds that they take."""
    own = {"BVLIB_RUNS": str(scratch / "runs"), "BVLIB_STORE": str(scratch / "store")}
    own |= {"PYTHONPATH": str(code), "OMP_NUM_THREADS": str(threads)}
    began, used = time.monotonic(), processor_seconds()
    for names in calls:
        command = [sys.executable, "-m", "bvlib.cli", "run", "--profile", profile, *names]
        done = subprocess.run(
            command, cwd=code, env={**os.environ, **own}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    took = {"seconds": time.monotonic() - began}
    return took | {"processor seconds": processor_seconds() - used}


def processor_seconds() -> float:
    """Of all processes that this one has waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def made(scratch: Path) -> dict[str, int]:
    """How many models and triggers a run made, and what its notebooks gave."""
    cards = [json.loads(path.read_text()) for path in scratch.glob("store/*/*.json")]
    kinds = [card.get("kind") for card in cards]
    return {
        "trainings": kinds.count("weights"),
        "triggers": kinds.count("trigger"),
        "tables": len(list(scratch.glob("runs/*/*/*/*.csv"))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("notebooks", nargs="*", help="such as 00 01; all that run by default")
    parser.add_argument("--profile", default="mini")
    parser.add_argument("--ways", nargs="*", default=WAYS, choices=WAYS)
    asked = parser.parse_args()
    default = [each.name for each in notebooks.every() if not each.long]
    one_by_one = [[name] for name in asked.notebooks or default]
    with tempfile.TemporaryDirectory(prefix="bvlib-before-") as folder:
        old, new = clone(Path(folder, "old"), BEFORE), clone(Path(folder, "new"), "HEAD")
        as_before(new, old, asked.profile)
        ways = {
            "before": (old, [asked.notebooks], 2),
            "in turn": (new, one_by_one, 2),
            "side by side": (new, [asked.notebooks], 1),
            "as shipped": (clone(Path(folder, "shipped"), "HEAD"), [asked.notebooks], 1),
        }
        rows = []
        for name in asked.ways:
            code, calls, threads = ways[name]
            scratch = Path(folder, name.replace(" ", "-"))
            took = seconds(code, scratch, calls, asked.profile, threads)
            rows.append({"way": name, **took, **made(scratch)})
            rows[-1]["times faster"] = rows[0]["seconds"] / took["seconds"]
            print(rows[-1], flush=True)
    if asked.profile == "mini":
        write("_".join(["before", *asked.notebooks]), rows)
    else:
        print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
