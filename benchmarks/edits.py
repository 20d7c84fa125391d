"""Four edits, each in a scratch clone of the last commit, and what the golden check then says.

A renamed variable and a moved module change no result, a plugin makes nothing stale, and 5 % more
learning rate is caught by name.

python benchmarks/edits.py             # the usual notebooks: five minutes an edit on one core
python benchmarks/edits.py --tests     # the whole of `make test` in place of the golden check
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from report import write

ROOT = Path(__file__).parents[1]
GOLDEN = [sys.executable, "-m", "bvlib.cli", "golden", "--check", "smoke"]
TESTS = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile"]
TESTS += ["-m", "not slow and not gpu"]
SMOKE = [sys.executable, "-m", "bvlib.cli", "run", "--profile", "smoke"]


def swap(path: Path, pattern: str, new: str) -> None:
    """Replace what must be there."""
    text, count = re.subn(pattern, new, path.read_text(encoding="utf-8"))
    assert count, f"{pattern} is not in {path}"
    path.write_text(text, encoding="utf-8")


def renamed(clone: Path) -> None:
    """The local variable of `rng.derive`."""
    swap(clone / "bvlib/core/rng.py", r"\btext\b", "named")


def moved(clone: Path) -> None:
    """`bvlib/attacks/evasion.py` goes to `bvlib/core`, and who imports it follows."""
    (clone / "bvlib/attacks/evasion.py").rename(clone / "bvlib/core/evasion.py")
    for path in [*clone.glob("bvlib/**/*.py"), *clone.glob("tests/*.py")]:
        text = path.read_text(encoding="utf-8")
        told = text.replace("bvlib.attacks.evasion", "bvlib.core.evasion")
        told = told.replace("from bvlib.attacks import evasion", "from bvlib.core import evasion")
        path.write_text(told, encoding="utf-8")


def faster(clone: Path) -> None:
    """The learning rate of smoke, 5 % higher."""
    swap(clone / "bvlib/run/profiles/smoke.yaml", r"lr: 2\.5e-4", "lr: 2.625e-4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--tests", action="store_true", help="run `make test`, not the golden check"
    )
    check = TESTS if parser.parse_args().tests else GOLDEN
    rows = []
    for edit in (renamed, moved, faster, plugin):
        with tempfile.TemporaryDirectory(prefix="bvlib-edit-") as scratch:
            clone = Path(scratch, "bvlib")
            subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
            rows.append(edit(clone) if edit is plugin else checked(edit, check, clone))
            print(rows[-1], flush=True)
    write("edits", rows)


def checked(edit: Callable[[Path], None], check: list[str], clone: Path) -> dict[str, object]:
    """What the check says after an edit of a clone."""
    edit(clone)
    done = run(clone, check)
    told = [line for line in (done.stdout + done.stderr).splitlines() if "differ" in line]
    return {"edit": edit.__doc__.strip(), "exit": done.returncode, "said": " / ".join(told[:4])}


def plugin(clone: Path) -> dict[str, object]:
    """The plugin of CONTRIBUTING.md: the rows of its merging method in the table of 06, and what
    `bv run` finds stale afterwards."""
    text = (clone / "CONTRIBUTING.md").read_text(encoding="utf-8")
    part = text.partition("<!-- plugin")[2].partition("<!-- /plugin -->")[0]
    blocks = re.findall(r"```python\n(.*?)```", part, flags=re.S)
    (clone / "my.py").write_text("\n\n".join(blocks), encoding="utf-8")
    few = ["06", "-p", "attacks=[badnets]", "-p"]
    run(clone, [*SMOKE, *few, "methods=[ties]"])
    done = run(clone, [*SMOKE, *few, "methods=[ties,median]", "--plugin", "my.py"])
    tables = (clone / "runs").glob("smoke/*/tables/main_in_full.csv")
    rows = sum("median" in line for path in tables for line in path.read_text().splitlines())
    again = run(clone, [*SMOKE, *few, "methods=[ties]"])
    told = [line.strip() for line in again.stdout.splitlines() if "up to date" in line]
    said = f"{rows} rows of median in 06's table; then, without it: {' / '.join(told)}"
    return {"edit": "a plugin's merging method", "exit": done.returncode, "said": said}


def run(clone: Path, command: list[str]) -> subprocess.CompletedProcess:
    own = {"BVLIB_RUNS": str(clone / "runs"), "BVLIB_STORE": str(clone / "store")}
    env = {**os.environ, **own, "PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True)


if __name__ == "__main__":
    main()
