"""The course, graded by nbgrader's own commands: solutions earn all points, untouched notebooks
none, usual wrong answers lose the right ones; nothing that students do stops a batch."""

import csv
import linecache
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("nbgrader", reason="the course needs the extra `course`: make course")

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import nbformat
import submissions
from nbgrader.api import Gradebook

COURSE = Path(__file__).parents[1] / "course"
ASSIGNMENTS = sorted(path.name for path in (COURSE / "source").iterdir() if path.is_dir())

pytestmark = pytest.mark.slow


def nbgrader(root, *command):
    """Run one of nbgrader's commands in a folder of a class."""
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *command], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of a class, with models of smoke."""
    made = tmp_path_factory.mktemp("course") / "class"
    submissions.build(made)
    return made


def notebook(root, name, where="source"):
    return nbformat.read(root / where / name / f"{name}.ipynb", as_version=4)


def grade_id(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def hand_in(root, student, name, made):
    folder = root / "submitted" / student / name
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(made, folder / f"{name}.ipynb")
    return folder


def points(root, name, student):
    """What a student earned by cell, without what is graded by hand."""
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as book:
        found = book.find_submission_notebook(name, name, student)
        return {g.name: g.auto_score for g in found.grades if g.cell_type == "code"}


def most(root, name):
    """The points that each check of an assignment gives."""
    cells = [cell.metadata.get("nbgrader", {}) for cell in notebook(root, name).cells]
    return {c["grade_id"]: c["points"] for c in cells if c.get("grade") and not c["solution"]}


def wrong(name):
    return yaml.safe_load((COURSE / "wrong" / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_points_are_earned_and_lost_as_they_should_be(root, name):
    solved, mistakes = notebook(root, name), wrong(name)[:5]
    hand_in(root, "solved", name, solved)
    hand_in(root, "untouched", name, notebook(root, name, "release"))
    for i, mistake in enumerate(mistakes):
        hand_in(root, f"wrong-{i}", name, mistaken(root, name, mistake))
    nbgrader(root, "autograde", name, "--force")
    full = most(root, name)
    assert sum(full.values()) + by_hand(root, name) == 20 and len(mistakes) == 5
    assert points(root, name, "solved") == full
    assert set(points(root, name, "untouched").values()) == {0}
    for i, mistake in enumerate(mistakes):
        lost = {cell: full[cell] - got for cell, got in points(root, name, f"wrong-{i}").items()}
        assert {cell: n for cell, n in lost.items() if n} == mistake["loses"], mistake["name"]


def mistaken(root, name, mistake):
    """The solution with a usual wrong answer in it."""
    made = notebook(root, name)
    for answer, source in mistake["answers"].items():
        submissions.cell(made, answer).source = source
    return made


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_every_other_wrong_answer_loses_what_it_should(root, name, monkeypatch):
    """Those beyond the five that nbgrader grades above, without a kernel."""
    monkeypatch.setenv("BVCOURSE_PACK", str(root / "pack"))
    monkeypatch.syspath_prepend(COURSE / "kit")
    full = most(root, name)
    for mistake in wrong(name)[5:]:
        got = earned(mistaken(root, name, mistake))
        lost = {cell: n - got[cell] for cell, n in full.items() if n != got[cell]}
        assert lost == mistake["loses"], mistake["name"]


def earned(made, student="somebody"):
    """The points of each check of a notebook that is run in this process."""
    names, got = {"__name__": "__main__"}, {}
    for cell in made.cells:
        if cell.cell_type != "code":
            continue
        source = cell.source.replace('STUDENT = ""', f'STUDENT = "{student}"')
        checked = (told := cell.metadata.get("nbgrader", {})).get("grade") and not told["solution"]
        file = f"<{grade_id(cell)} {id(made)}>"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        try:
            if checked:
                source = source.replace("\nscore(checks)", "\nearned = score(checks)")
            exec(compile(source, file, "exec"), names)
            value = names["earned"] if checked else None
        except Exception:
            value = 0
        if checked:
            got[grade_id(cell)] = value
    return got


def by_hand(root, name):
    cells = [cell.metadata.get("nbgrader", {}) for cell in notebook(root, name).cells]
    return sum(c["points"] for c in cells if c.get("grade") and c["solution"])


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_the_student_version_holds_no_solution(root, name):
    text = (root / "release" / name / f"{name}.ipynb").read_text(encoding="utf-8")
    assert "BEGIN" not in text and "HIDDEN" not in text
    solutions = [c for c in notebook(root, name).cells if "### BEGIN SOLUTION" in c.source]
    assert len(solutions) >= 4
    for cell in solutions:
        lines = cell.source.split("### BEGIN SOLUTION")[1].split("### END SOLUTION")[0].splitlines()
        longest = max(lines, key=len).strip()
        assert longest not in text, longest


def test_what_students_do_to_a_notebook_stops_no_batch(root, tmp_path):
    """One submission of each kind; 300 in one batch: benchmarks/submissions.py."""
    made = tmp_path / "class"
    shutil.copytree(root, made, ignore=shutil.ignore_patterns("submitted", "autograded"))
    handed = submissions.hand_in(made, len(submissions.KINDS))
    assert not submissions.wrong(submissions.grade(made, jobs=2), handed)
    again = subprocess.run(
        [sys.executable, str(made / "grade.py"), submissions.NAME], capture_output=True, text=True
    )
    assert again.stdout.startswith("0 graded")


def test_the_committed_batch_of_300_came_out_as_it_should():
    with open(submissions.COURSE.parent / "benchmarks/results/submissions.csv") as file:
        rows = {row["kind"]: row for row in csv.DictReader(file)}
    assert rows.keys() == submissions.KINDS.keys()
    assert sum(int(row["submissions"]) for row in rows.values()) == 300
    for kind, row in rows.items():
        assert row["as it should be"] == row["submissions"], kind
        assert submissions.KINDS[kind][2] in row["note"]


SPY = """\
import os
for path in {paths}:
    try:
        os.listdir(path)
    except PermissionError:
        continue
    raise RuntimeError(f"{{path}} can be read")
"""


def test_code_of_students_runs_as_another_account_or_not_at_all(root, tmp_path):
    sys.path.insert(0, str(COURSE / "grading"))
    import grade

    assert "no such account" in grade.not_able("nobody-of-this-name")
    made = tmp_path / "class"
    shutil.copytree(root, made, ignore=shutil.ignore_patterns("submitted", "autograded"))
    made.chmod(0o700)
    solved = notebook(made, "vectors")
    spy = SPY.format(paths=[str(made), str(made / "source")])
    first = submissions.cell(solved, "between")
    first.source = spy + first.source  # a path that can be read leaves the function unwritten
    hand_in(made, "spy", "vectors", solved)
    command = [sys.executable, str(made / "grade.py"), "vectors", "--user", "nobody"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if refused := grade.not_able("nobody"):  # tests that are not root's, or a closed Python
        assert done.returncode == 2 and done.stderr.strip() == refused
        assert not (made / "autograded").exists()
        return
    assert done.returncode == 0
    assert points(made, "vectors", "spy") == most(made, "vectors")
