"""What a full disk, a read-only store, a damaged result and a clock that jumps do to a run.

Each fault gives one line (or nothing) and loses nothing: once it is gone, the same call ends with
the tables of a run without it. Mounts small file systems, so it needs root on Linux.

python benchmarks/faults.py    # a few minutes
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import write

RUN = [sys.executable, "-m", "bvlib.cli", "run", "00", "--profile", "smoke"]


def bv(store: Path, runs: Path) -> tuple[int, list[str]]:
    """Exit status of `bv run 00` under smoke, and the lines of its stderr."""
    env = {**os.environ, "BVLIB_RUNS": str(runs), "BVLIB_STORE": str(store), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(RUN, env=env, capture_output=True, text=True)
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("bv: ")]


def tables(runs: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(runs.rglob("tables/*.csv"))}


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        calm = Path(scratch, "calm")
        assert bv(calm / "store", calm / "runs")[0] == 0
        expected = tables(calm / "runs")

        def after(fault: str, said: tuple[int, list[str]], store: Path, runs: Path) -> None:
            code = bv(store, runs)[0]
            rows.append(
                {
                    "fault": fault,
                    "exit": said[0],
                    "lines": len(said[1]),
                    "said": " / ".join(said[1]).replace(scratch, "DIR"),
                    "after it": "same tables" if tables(runs) == expected else f"differ ({code})",
                }
            )

        for fault in ("full disk", "read-only store"):
            folder = Path(scratch, fault.replace(" ", "-"))
            store, runs = folder / "store", folder / "runs"
            store.mkdir(parents=True)
            size = "9m" if fault == "full disk" else "200m"
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(store)]
            subprocess.run(mount, check=True)
            try:
                if fault == "read-only store":
                    subprocess.run(["mount", "-o", "remount,ro", str(store)], check=True)
                said = bv(store, runs)
                subprocess.run(["mount", "-o", "remount,rw,size=900m", str(store)], check=True)
                after(fault, said, store, runs)
            finally:
                subprocess.run(["umount", str(store)], check=True)

        store, runs = Path(scratch, "damage", "store"), Path(scratch, "damage", "runs")
        assert bv(store, runs)[0] == 0
        damaged = max((store / "weights").glob("clean-*.safetensors"))
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
        said = bv(store, runs)
        after("one bit of a stored model flipped", said, store, runs)

        future = time.time() + 10 * 365 * 86400
        for path in [*store.rglob("*"), *runs.rglob("*")]:
            os.utime(path, (future, future))
        said = bv(store, runs)
        after("all files of ten years hence", said, store, runs)
    write("faults", rows)
    if any(row["after it"] != "same tables" or row["lines"] > 1 for row in rows):
        sys.exit("a fault was told in more than a line, or lost something")


if __name__ == "__main__":
    main()
