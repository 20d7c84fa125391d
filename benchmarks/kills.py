"""Kills a smoke study at random moments and calls it again, until it has been killed often enough.

Whatever is killed (`bv run`, Snakemake, a job of it, a kernel), the next call goes on: in the end
the tables are those of a study that nobody killed, and nothing that was trained is trained again.

Each sort of process is killed as often as the others.

python benchmarks/kills.py --write      # 50 kills: about an hour on two cores
python benchmarks/kills.py --kills 5    # what `make check` does
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from report import write

KINDS = {  # words in the command line of each sort of process
    "kernel": "ipykernel_launcher",
    "job": "bvlib.run.workflow",
    "Snakemake": "-m snakemake",
    "bv run": "bvlib.cli run",
}
STUDY = ("00", "--profile", "smoke", "--seeds", "0,1", "--jobs", "3")


def start(folder: Path) -> subprocess.Popen:
    """`bv run` of the study with runs and store in a folder."""
    env = {**os.environ, "BVLIB_RUNS": str(folder / "runs"), "BVLIB_STORE": str(folder / "store")}
    command = [sys.executable, "-m", "bvlib.cli", "run", *STUDY]
    with open(folder / "log", "a") as log:
        return subprocess.Popen(command, env=env, stdout=log, stderr=log)


def family(folder: Path) -> dict[str, list[psutil.Process]]:
    """Living processes of the study by kind; also those whose parent is dead."""
    found: dict[str, list[psutil.Process]] = {kind: [] for kind in KINDS}
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if process.environ().get("BVLIB_RUNS") == str(folder / "runs"):
                for kind, words in KINDS.items():
                    if words in line and not line.startswith(("/bin/", "bash", "sh ")):
                        found[kind].append(process)
        except (psutil.Error, OSError):
            continue
    return found


def stored(folder: Path) -> dict[str, int]:
    """{card of a stored result: when it was written}."""
    cards = (folder / "store").rglob("*.json")
    return {str(p): p.stat().st_mtime_ns for p in cards if not p.name.endswith(".value.json")}


def tables(folder: Path) -> dict[str, bytes]:
    """{table: its bytes} of all runs."""
    paths = sorted((folder / "runs" / "smoke").glob("seed-*/tables/*.csv"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="to benchmarks/results/kills.csv")
    asked = parser.parse_args()
    rng, killed, studies, again = random.Random(asked.seed), Counter(), 0, 0
    with tempfile.TemporaryDirectory() as scratch:
        calm = Path(scratch, "calm")
        calm.mkdir()
        began = time.monotonic()
        assert start(calm).wait() == 0, (calm / "log").read_text()
        usual, expected = time.monotonic() - began, tables(calm)
        print(f"a study takes {usual:.0f} s and gives {len(expected)} tables", flush=True)
        while killed.total() < asked.kills:
            folder = Path(scratch, f"study-{studies}")
            folder.mkdir()
            seen: dict[str, int] = {}
            while True:
                bv = start(folder)
                kind = min(sorted(KINDS), key=lambda each: (killed[each], rng.random()))
                deadline = time.monotonic() + rng.uniform(0.05, 0.6) * usual
                victims: list[psutil.Process] = []
                while not victims and bv.poll() is None:
                    time.sleep(0.05)
                    now = stored(folder)
                    again += sum(now.get(card, when) != when for card, when in seen.items())
                    seen = now | seen
                    if time.monotonic() > deadline and killed.total() < asked.kills:
                        victims = family(folder)[kind]
                if not victims:
                    code = bv.wait()
                    assert code == 0, (folder / "log").read_text()[-3000:]
                    break
                with contextlib.suppress(psutil.NoSuchProcess):
                    rng.choice(victims).send_signal(signal.SIGKILL)
                killed[kind] += 1
                print(f"{killed.total()}: killed a {kind}", flush=True)
                bv.wait()  # it tells what failed, if it lives; the next call goes on
            now = stored(folder)
            again += sum(now.get(card) != when for card, when in seen.items())
            assert tables(folder) == expected, f"other tables: {folder}"
            studies += 1
            shutil.rmtree(folder)
    row = {**killed, "studies": studies, "same tables": studies, "made again": again}
    if asked.write:
        write("kills", [row])
    print(row)
    if again:
        sys.exit(f"{again} results were made again")


if __name__ == "__main__":
    main()
