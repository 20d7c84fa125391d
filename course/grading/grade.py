"""Grade all submissions of an assignment: python grade.py ASSIGNMENT [--jobs 2] [--user NAME]

Runs in the folder of a class (where nbgrader_config.py is), on submitted/<student>/<assignment>/.
Each submission is graded by `nbgrader autograde` in a process of its own, so that none stops
another. grades-<assignment>.csv gets a row a student: points, what is still to be graded by hand,
and one line on everything that was not as it should be. A call goes on where the last one stopped;
--again grades all anew, --student one. --table only writes the table once more, with what was
graded by hand since.
"""

import argparse
import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

try:
    from nbgrader.api import Gradebook
    from robust import CLASS
except ImportError:
    sys.exit("nbgrader is not in this Python: activate the .venv of the clone first")

LARGEST = 20_000_000  # bytes of a notebook that is opened


def refused(path: Path) -> str:
    """Why a submitted notebook cannot be graded at all, or nothing."""
    if not path.is_file():
        others = sorted(each.name for each in path.parent.glob("*.ipynb"))
        there = f", but {', '.join(others)}: rename it" if others else ""
        return f"no {path.name} was handed in{there}"
    if path.is_symlink():
        return f"{path.name} is a link, not a file"
    if path.stat().st_size > LARGEST:
        size = f"{path.stat().st_size / 1e6:.0f} MB"
        return f"{path.name} has {size}: clear its outputs and hand it in again"
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(cells, dict) or not ("cells" in cells or "worksheets" in cells):
            return f"{path.name} is no notebook"
    except (UnicodeDecodeError, json.JSONDecodeError):
        return f"{path.name} is damaged: it is no JSON"
    return ""


def not_able(user: str) -> str:
    """Why an account cannot run the code of students, or nothing."""
    try:
        import pwd

        account = pwd.getpwnam(user)
    except KeyError:
        return f"--user {user}: there is no such account (as root: useradd --no-create-home {user})"
    except ImportError:
        return f"--user {user}: this system cannot run code as another account"
    tried = [sys.executable, "-c", "import bvlib, ipykernel, safetensors"]
    ids = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    try:
        done = subprocess.run(tried, **ids, capture_output=True)
    except OSError as error:
        if os.geteuid():
            return f"--user {user}: only root may run code as another account ({error})"
        return f"--user {user}: this account cannot run {sys.executable}; put the clone elsewhere"
    if done.returncode:
        return f"--user {user}: this account cannot read {sys.prefix}; put the clone elsewhere"
    return ""


def autograde(assignment: str, student: str, given: argparse.Namespace) -> str:
    """Grade one submission in a process of its own. What stopped it, or nothing."""
    command = [sys.executable, "-m", "nbgrader", "autograde", assignment, "--force"]
    command += ["--student", student, f"--Guarded.user={given.user}"]
    command += [f"--Guarded.timeout={given.cell_seconds}", f"--Guarded.memory={given.memory << 30}"]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=CLASS, start_new_session=True, **how)
    try:
        said, _ = process.communicate(timeout=given.seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        return f"grading took more than {given.seconds} s and was stopped"
    if process.returncode:
        errors = re.findall(r"^ *(\w*(?:Error|Exception): .*)$", said, re.M)
        return f"nbgrader could not grade it: {errors[-1] if errors else process.returncode}"
    return ""


def _end(process) -> None:
    """Kill a process and all that it started."""
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.communicate()


def notes_of(path: Path) -> list[str]:
    """The notes that `robust.py` left in a graded notebook."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["metadata"]["bvcourse"]["notes"]
    except (OSError, KeyError, json.JSONDecodeError):
        return []


def zero(assignment: str, student: str) -> None:
    """A submission that could not be graded, with 0 points, in nbgrader's gradebook."""
    with Gradebook(f"sqlite:///{CLASS / 'gradebook.db'}", "bvcourse") as book:
        book.update_or_create_student(student)
        submission = book.update_or_create_submission(assignment, student)
        for notebook in submission.notebooks:
            for grade in notebook.grades:
                grade.auto_score, grade.needs_manual_grade = 0, False
        book.db.commit()


def row(assignment: str, student: str, notes: list[str]) -> dict:
    """A line of the table of grades."""
    with Gradebook(f"sqlite:///{CLASS / 'gradebook.db'}", "bvcourse") as book:
        found = book.find_submission(assignment, student)
        by_hand = sum(g.needs_manual_grade for n in found.notebooks for g in n.grades)
        return {
            "student": student,
            "points": f"{found.score:g}",
            "of": f"{found.max_score:g}",
            "by hand": f"{by_hand} to grade" if by_hand else "",
            "notes": "; ".join(notes),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("assignment")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=900, help="for one submission")
    parser.add_argument("--cell-seconds", type=int, default=120, help="for one cell")
    parser.add_argument("--memory", type=int, default=8, help="GiB that a kernel may ask for")
    parser.add_argument("--user", default="", help="the account that runs the students' code")
    parser.add_argument("--table", action="store_true", help="write the table, grade nothing")
    parser.add_argument("--student", help="grade this one alone, anew")
    parser.add_argument("--again", action="store_true", help="grade all anew")
    given = parser.parse_args()
    name = given.assignment
    there = sorted(path.name for path in CLASS.glob("source/*"))
    if name not in there:
        why = f"the assignments are {', '.join(there)}" if there else "make course makes one"
        print(f"{CLASS} is no class with an assignment {name!r}: {why}", file=sys.stderr)
        return 2
    handed_in = sorted(CLASS.glob(f"submitted/{given.student or '*'}/{name}"))
    if not handed_in:
        who = given.student or "<student>"
        print(f"nothing in {CLASS}/submitted/{who}/{name}: put notebooks there", file=sys.stderr)
        return 2
    if given.user and (why := not_able(given.user)):
        print(why, file=sys.stderr)
        return 2
    table, began = CLASS / f"grades-{name}.csv", time.monotonic()
    anew = given.again and not given.student
    rows, lock = {} if anew else _done(table), threading.Lock()
    rows.pop(given.student, None)
    if given.table:
        rows = {student: row(name, student, [told["notes"]]) for student, told in rows.items()}
        _write(table, rows)
        print(f"{len(rows)} in {table.name}")
        return 0

    def grade(folder: Path) -> None:
        student, start = folder.parent.name, time.monotonic()
        path = folder / f"{name}.ipynb"
        why = refused(path) or autograde(name, student, given)
        with lock:
            if why:
                zero(name, student)
            graded = CLASS / "autograded" / student / name / path.name
            rows[student] = row(name, student, [why] if why else notes_of(graded))
            _write(table, rows)
            told = rows[student]
            spent = f"{time.monotonic() - start:.0f} s"
            print(f"{student}: {told['points']} of {told['of']}, {spent}. {told['notes']}")

    todo = [folder for folder in handed_in if folder.parent.name not in rows]
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(grade, todo))
    spent = time.monotonic() - began
    print(f"{len(todo)} graded in {spent:.0f} s, {len(rows)} in {table.name}")
    return 0


def _done(table: Path) -> dict[str, dict]:
    if not table.exists():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        return {line["student"]: line for line in csv.DictReader(file)}


def _write(table: Path, rows: dict[str, dict]) -> None:
    draft = table.with_suffix(".draft")
    with draft.open("w", encoding="utf-8", newline="") as file:
        lines = csv.DictWriter(file, ["student", "points", "of", "by hand", "notes"])
        lines.writeheader()
        lines.writerows(rows[student] for student in sorted(rows))
    draft.replace(table)


if __name__ == "__main__":
    sys.exit(main())
