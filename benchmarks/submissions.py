"""A batch of submissions as students and accidents make them, graded in one go.

    python benchmarks/submissions.py [--count 300] [--jobs 2] [--write]

Makes a class with models of smoke, hands in the first assignment ``count`` times, one kind after
the other, and grades all with `course/grading/grade.py`. Fails unless each kind earns what it
should and is told in the table of grades. --write keeps the table in results/submissions.csv. Needs
the extra `course`.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nbformat

COURSE = Path(__file__).parents[1] / "course"
NAME = "vectors"
LIMITS = ["--cell-seconds", "40", "--memory", "6", "--seconds", "300"]

LOOP = "def accuracy(predicted, labels):\n    while True:\n        pass\n"
FLOOD = "def accuracy(predicted, labels):\n    while True:\n        print('x' * 1_000_000)\n"
GREEDY = "def accuracy(predicted, labels):\n    return bytearray(1 << 40)\n"
ENDS = "import os\n\ndef accuracy(predicted, labels):\n    os._exit(1)\n"
SPY = """\
from pathlib import Path

# looks for the notebook with the hidden checks, and for the gradebook
seen = list(Path.cwd().glob("*.ipynb")) + list(Path.cwd().parent.glob("*/*.ipynb"))
"""


def cell(nb, name: str):
    """The cell with an id of nbgrader's."""
    return next(c for c in nb.cells if c.metadata.get("nbgrader", {}).get("grade_id") == name)


def after(nb, name: str) -> int:
    """The place after a cell."""
    return nb.cells.index(cell(nb, name)) + 1


def answer(source: str) -> Callable:
    """A notebook whose answer on accuracy is another."""

    def made(nb):
        cell(nb, "accuracy").source = source
        return nbformat.writes(nb)

    return made


def copied(nb) -> str:
    """An answer cell is copied, with its id, and the copy is wrong."""
    twin = nbformat.from_dict(json.loads(json.dumps(cell(nb, "between"))))
    twin.source = "def between(finetuned, start):\n    return None"
    nb.cells.insert(after(nb, "test-between"), twin)
    return nbformat.writes(nb)


def deleted(nb) -> str:
    """A check is deleted."""
    nb.cells.remove(cell(nb, "test-add"))
    return nbformat.writes(nb)


def edited(nb) -> str:
    """A check is edited so that it gives its points for nothing."""
    cell(nb, "accuracy").source = "def accuracy(predicted, labels):\n    return 0"
    cell(nb, "test-accuracy").source = "2.0"
    return nbformat.writes(nb)


def old(nb) -> str:
    """The notebook was saved in the format of ten years ago."""
    return json.dumps(nbformat.convert(nb, 3))


def spying(nb) -> str:
    """A cell of the student's own looks for the hidden checks, and fails if it finds any."""
    own = SPY + "assert not seen, seen"
    nb.cells.insert(after(nb, "setup"), nbformat.v4.new_code_cell(own))
    cell(nb, "between").source += "\nassert not seen"
    return nbformat.writes(nb)


# kind: what is handed in (None: nothing), the points that it earns of 16, words of the note
KINDS: dict[str, tuple[Callable | None, float, str]] = {
    "right": (nbformat.writes, 16, ""),
    "copied cell": (copied, 16, "'between' is there more than once"),
    "deleted check": (deleted, 16, "'test-add' is missing"),
    "endless loop": (answer(LOOP), 14, "ran out of time"),
    "endless output": (answer(FLOOD), 14, "printed more than"),
    "old format": (old, 16, ""),
    "edited check": (edited, 14, "'test-accuracy' was edited"),
    "looks for hidden checks": (spying, 16, ""),
    "damaged file": (lambda nb: nbformat.writes(nb)[:500], 0, "is damaged"),
    "another name": (None, 0, "no vectors.ipynb was handed in"),
    "too much memory": (answer(GREEDY), 14, "asked for more memory"),
    "ends the kernel": (answer(ENDS), 7, "ended the kernel"),
}


def build(root: Path) -> None:
    """A class with models of smoke and the assignments of the course."""
    own = {"BVLIB_STORE": str(root.parent / "store"), "BVLIB_RUNS": str(root.parent / "runs")}
    command = [sys.executable, str(COURSE / "build.py"), str(root), "--profile", "smoke"]
    subprocess.run(command, check=True, env={**os.environ, **own}, capture_output=True)


def hand_in(root: Path, count: int) -> dict[str, str]:
    """``count`` submissions, one kind after the other: student -> kind."""
    handed = {}
    for i in range(count):
        kind = list(KINDS)[i % len(KINDS)]
        nb = nbformat.read(root / "release" / NAME / f"{NAME}.ipynb", as_version=4)
        solved = nbformat.read(root / "source" / NAME / f"{NAME}.ipynb", as_version=4)
        for place in nb.cells:
            told = place.metadata.get("nbgrader", {})
            if told.get("solution") and place.cell_type == "code":
                place.source = cell(solved, told["grade_id"]).source
        student = f"student-{i:03}"
        folder = root / "submitted" / student / NAME
        folder.mkdir(parents=True)
        make, name = KINDS[kind][0], f"{NAME}.ipynb"
        if make is None:
            make, name = nbformat.writes, "Untitled.ipynb"
        (folder / name).write_text(make(nb), encoding="utf-8")
        handed[student] = kind
    return handed


def grade(root: Path, jobs: int) -> list[dict]:
    """The table of grades of all that was handed in."""
    command = [sys.executable, str(root / "grade.py"), NAME, "--jobs", str(jobs), *LIMITS]
    subprocess.run(command, check=True, cwd=root)
    with (root / f"grades-{NAME}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def wrong(rows: list[dict], handed: dict[str, str]) -> list[str]:
    """What is not as it should be."""
    found = [f"{each} has no grade" for each in handed if each not in {r["student"] for r in rows}]
    for row in rows:
        kind = handed[row["student"]]
        _, points, words = KINDS[kind]
        if float(row["points"]) != points or (words not in row["notes"]):
            found.append(f"{kind}: {row['points']} points, not {points}; {row['notes']!r}")
        if not words and row["notes"]:
            found.append(f"{kind}: a note on nothing: {row['notes']!r}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "class"
        build(root)
        handed = hand_in(root, given.count)
        began = time.monotonic()
        rows = grade(root, given.jobs)
        spent = time.monotonic() - began
    for fault in (faults := wrong(rows, handed)):
        print(fault)
    print(f"{len(rows)} submissions in {spent:.0f} s, {spent / len(rows):.1f} s each")
    if given.write:
        from report import write

        told = {row["student"]: row for row in rows}
        first = {kind: student for student, kind in reversed(handed.items())}
        table = [
            {
                "kind": kind,
                "submissions": list(handed.values()).count(kind),
                "points": KINDS[kind][1],
                "as it should be": sum(
                    not wrong([told[s]], {s: k}) for s, k in handed.items() if k == kind
                ),
                "note": told[first[kind]]["notes"],
            }
            for kind in KINDS
        ]
        write("submissions", table)
    return len(faults)


if __name__ == "__main__":
    sys.exit(main())
