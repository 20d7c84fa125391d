"""What nbgrader does before and while it runs a student's notebook, here made robust.

`Rebuilt` puts the student's answers into the released notebook: whatever was copied, deleted,
edited or moved, the notebook that is graded has each check once, as it was released. `Guarded` runs
it in a kernel with limits. Each says what it had to do in `notes` of the notebook's metadata, and
`grade.py` puts these lines into the table of grades.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import ClassVar

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbgrader.preprocessors import Execute, NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution
from traitlets import Integer, Unicode

CLASS = Path(__file__).resolve().parent
# nbgrader calls `alembic`, which a virtual environment that is not activated hides
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def note(nb, line: str) -> None:
    """Add a line to the notes of a notebook, once."""
    notes = nb.metadata.setdefault("bvcourse", {}).setdefault("notes", [])
    if line not in notes:
        notes.append(line)


def rebuilt(student, released):
    """The released notebook with a student's answers in it, and notes of what was not as released.

    An answer is the first cell with the id of an answer cell. Cells of the student's own keep their
    place: after the released cell that they follow. Both are notebooks in nbformat 4.
    """
    made = nbformat.from_dict(json.loads(json.dumps(released)))
    ids = [_id(cell) for cell in made.cells]
    known = {cell.source.strip() for cell in made.cells}
    answers, extra, seen, after, notes = {}, {}, set(), None, []
    for cell in student.cells:
        name = _id(cell)
        if name not in ids or name is None:
            if (
                cell.cell_type == "code"
                and cell.source.strip()
                and cell.source.strip() not in known
            ):
                cell.metadata.pop("nbgrader", None)
                extra.setdefault(after, []).append(cell)
            continue
        if name in seen:
            notes.append(f"cell {name!r} is there more than once: the first one counts")
            continue
        seen.add(name)
        after = name
        place = made.cells[ids.index(name)]
        if is_solution(place):
            answers[name] = cell.source
        elif cell.source.strip() != place.source.strip():
            what = "check" if is_grade(place) else "cell"
            notes.append(f"{what} {name!r} was edited: it is graded as released")
    for name in filter(None, ids):
        if name not in seen:
            place = made.cells[ids.index(name)]
            what = "answer" if is_solution(place) else "check" if is_grade(place) else "cell"
            notes.append(f"{what} {name!r} is missing: it is put back as released")
    cells = list(extra.pop(None, []))
    for name, cell in zip(ids, made.cells):
        if name in answers:
            cell.source = answers[name]
        cells += [cell, *extra.pop(name, [])] if name else [cell]
    made.cells = cells
    for line in notes:
        note(made, line)
    return made


def _id(cell) -> str | None:
    return cell.metadata.get("nbgrader", {}).get("grade_id")


class Rebuilt(NbGraderPreprocessor):
    """First of the steps that make a submission ready: see :func:`rebuilt`."""

    def preprocess(self, nb, resources):
        of = resources["nbgrader"]
        path = CLASS / "release" / of["assignment"] / f"{of['notebook']}.ipynb"
        return rebuilt(nb, nbformat.read(path, as_version=4)), resources


class LimitedKernel(AsyncKernelManager):
    """A kernel that `guard.py` starts."""

    limits: ClassVar[dict] = {}

    def format_kernel_cmd(self, extra_arguments=None):
        guard = str(Path(__file__).with_name("guard.py"))
        return [sys.executable, guard, json.dumps(self.limits), self.connection_file]


class Guarded(Execute):
    """Runs a notebook cell by cell, in a folder of its own and within limits.

    What the folder holds is what lies beside the notebook, but no notebook: the hidden checks are
    not there to be read. The models of the course are read where they lie.
    """

    iopub_timeout = Integer(30, allow_none=False).tag(config=True)  # a busy machine is late
    timeout = Integer(120, allow_none=True, help="seconds for a cell").tag(config=True)
    seconds = Integer(600, help="for the whole notebook").tag(config=True)
    memory = Integer(8 << 30, help="bytes of address space of the kernel").tag(config=True)
    printed = Integer(200_000, help="characters that a cell may put out").tag(config=True)
    user = Unicode("", help="the account that runs the code of students").tag(config=True)

    def preprocess(self, nb, resources, km=None):
        limits = {"memory": self.memory, "seconds": 4 * self.seconds, "printed": self.printed}
        LimitedKernel.limits = {**limits, "user": self.user}
        self.kernel_manager_class = LimitedKernel
        self._end, self._said, self._stopped = time.monotonic() + self.seconds, {}, set()
        self._now = None
        self.timeout_func = self._time_left
        of = resources["nbgrader"]
        graded = CLASS / "autograded" / of["student"] / of["assignment"]
        os.environ["BVCOURSE_STUDENT"] = of["student"]
        os.environ.setdefault("BVCOURSE_PACK", str(CLASS / "pack"))
        with tempfile.TemporaryDirectory(prefix="bvcourse-") as folder:
            for path in graded.iterdir():
                if path.is_file() and path.suffix != ".ipynb":
                    shutil.copy(path, folder)
            if self.user:  # it may read nothing of the class: it gets copies
                shutil.copytree(os.environ["BVCOURSE_PACK"], Path(folder) / "pack")
                for path in (Path(folder), *Path(folder).rglob("*")):
                    shutil.chown(path, self.user)
                os.environ["BVCOURSE_PACK"] = str(Path(folder) / "pack")
            resources["metadata"] = {**resources.get("metadata", {}), "path": folder}
            try:
                super().preprocess(nb, resources, km)
            except (DeadKernelError, CellTimeoutError):
                self._give_up(nb)
        for cell in nb.cells:
            self._note(nb, cell)
        return nb, resources

    def _time_left(self, cell) -> int:
        self._now = cell
        return max(1, min(self.timeout or self.seconds, int(self._end - time.monotonic())))

    def process_message(self, msg, cell, cell_index):
        """Drop what a cell puts out beyond the limit, and stop it once."""
        kind = msg["msg_type"]
        if kind in ("stream", "display_data", "execute_result", "update_display_data"):
            self._said[cell_index] = self._said.get(cell_index, 0) + len(json.dumps(msg["content"]))
            if self._said[cell_index] > 2 * self.printed:
                if cell_index not in self._stopped:
                    self._stopped.add(cell_index)
                    error = {
                        "ename": "TooMuchOutput",
                        "evalue": f"this cell put out more than {self.printed:,} characters",
                        "traceback": [],
                    }
                    cell.outputs.append(nbformat.v4.new_output("error", **error))
                return None
        return super().process_message(msg, cell, cell_index)

    def _give_up(self, nb) -> None:
        """The kernel is gone: the cell that ran and all that follow earn nothing."""
        at = next((i for i, cell in enumerate(nb.cells) if cell is self._now), 0)
        error = {"ename": "DeadKernel", "evalue": "the kernel was gone", "traceback": []}
        for cell in nb.cells[at:]:
            if cell.cell_type == "code":
                cell.outputs = [nbformat.v4.new_output("error", **error)]
        name = _id(nb.cells[at]) or "of the student's own"
        why = "ended the kernel (memory, time or exit)"
        note(nb, f"cell {name!r} {why}: what follows did not run")

    def _note(self, nb, cell) -> None:
        """What stopped a cell, as a note."""
        for output in cell.get("outputs", []):
            if output.output_type != "error":
                continue
            name = _id(cell) or "of the student's own"
            if output.ename == "CellTimeoutError":
                note(nb, f"cell {name!r} ran out of time")
            elif "printed more than" in output.evalue or output.ename == "TooMuchOutput":
                note(nb, f"cell {name!r} {output.evalue.removeprefix('this cell ')}")
            elif output.ename == "MemoryError":
                note(nb, f"cell {name!r} asked for more memory than there is")
