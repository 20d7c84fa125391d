"""One notebook through papermill, in a fresh kernel of this very Python."""

import logging
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from bvlib.core.errors import BvError, NotebookFailed
from bvlib.files.safe import read_json_if, write_json
from bvlib.run import settings
from bvlib.run.notebooks import root_folder, shown
from bvlib.run.records import Job, Say

# Large tensors on large pages, where the C library knows how: a training step is 1.05 times faster.
LARGE_PAGES = "glibc.malloc.hugetlb=1"


def _worth_telling(record: logging.LogRecord) -> bool:
    """Not the traceback of a kernel that died: a run says so in its own words."""
    return not (record.exc_info and isinstance(record.exc_info[1], DeadKernelError))


logging.getLogger("asyncio").addFilter(_worth_telling)


def execute(job: Job, parameters: Mapping[str, Any], say: Say) -> None:
    """Execute into `<out>/<name>.ipynb`; what was reached before an error goes to
    `<name>.failed.ipynb`.

    ``say`` gets the headings, and the lines that the notebook appends to the file that
    BVLIB_PROGRESS names to it. A BvError in the notebook is raised as it is, any other error as
    NotebookFailed.
    """
    partial, failed, log = job.hidden("running.ipynb"), job.path("failed.ipynb"), job.hidden("log")
    for old in (partial, failed):
        old.unlink(missing_ok=True)
    target, began = failed, time.perf_counter()

    def timed(text: str) -> None:
        say(f"  {time.perf_counter() - began:4.0f} s  {text}")

    def begins(cell: Any, cell_index: int) -> None:
        headings = re.findall(r"(?m)^#{1,3} (.*)", cell.source)
        if cell.cell_type == "markdown" and headings:
            timed(headings[-1])

    try:
        with tempfile.TemporaryDirectory(prefix="bv-") as scratch, open(log, "w") as printed:
            notes = Path(scratch) / "notes"
            own = {"IPYTHONDIR": f"{scratch}/ipython", "BVLIB_PROGRESS": str(notes)}
            own["OMP_NUM_THREADS"] = str(settings.resources(job.profile).threads)
            own["GLIBC_TUNABLES"] = os.environ.get("GLIBC_TUNABLES", LARGE_PAGES)
            with _followed(notes, timed):
                papermill.execute_notebook(
                    str(job.notebook.path),
                    str(partial),
                    parameters=dict(parameters),
                    kernel_name="python3",
                    language="python",
                    progress_bar=False,
                    cwd=str(root_folder()),
                    start_timeout=180,
                    kernel_manager_class=_this_python({**os.environ, **own}, printed),
                    on_cell_start=begins,
                )
        target = job.path("ipynb")
    except PapermillExecutionError as error:
        raise _stopped(error, job) from None
    except DeadKernelError:
        raise BvError(
            f"the kernel of {job.name} died, perhaps for lack of memory: what was computed is "
            f"kept, run it again (its last words: {shown(log)})"
        ) from None
    finally:
        _move(partial, target, job)


def _stopped(error: PapermillExecutionError, job: Job) -> BvError:
    """The error to raise for one in a notebook; prints the traceback unless it is a BvError."""
    if error.traceback == [f"{error.ename}: {error.evalue}"]:  # how a BvError renders itself
        return BvError(error.evalue)
    text = "\n".join(error.traceback)
    print(text if sys.stderr.isatty() else re.sub(r"\x1b\[[0-9;]*m", "", text), file=sys.stderr)
    what = f"{error.ename}: {(error.evalue.splitlines() or [''])[0]}"
    where = f"{job.name} stopped at In [{error.exec_count}]"
    return NotebookFailed(f"{where} with {what} (see {shown(job.path('failed.ipynb'))})")


def _move(partial: Path, target: Path, job: Job) -> None:
    """Move an executed notebook to its place, without paths of this machine in its metadata."""
    content = read_json_if(partial)
    if content is not None:
        content["metadata"].get("papermill", {}).update(
            input_path=job.notebook.path.name, output_path=target.name, environment_variables={}
        )
        write_json(target, content)
    partial.unlink(missing_ok=True)


def _this_python(environ: Mapping[str, str], log: Any) -> type:
    """A kernel manager that starts this interpreter, whatever kernels the user has installed.

    What the kernel process itself prints (not the cells' output) goes to the file `log`.
    """

    class ThisPython(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(**get_kernel_dict())

        async def start_kernel(self, **options: Any) -> None:
            await super().start_kernel(env=dict(environ), stdout=log, stderr=log, **options)
            started: Any = self.provisioner  # one of this machine: it has a pid
            _as_nice_as_this(started.pid)

    return ThisPython


def _as_nice_as_this(pid: int) -> None:
    """Give the session of a kernel the niceness of this process. Where Linux shares processors out
    by session (autogroup), that of the kernel itself counts only within its session."""
    group = Path(f"/proc/{pid}/autogroup")
    with suppress(OSError):  # not on this machine, or not allowed
        if group.exists():
            group.write_text(str(os.getpriority(os.PRIO_PROCESS, 0)))


@contextmanager
def _followed(notes: Path, say: Say) -> Iterator[None]:
    """Say each line that is appended to the file `notes`, about a second later."""
    ended = threading.Event()

    def follow() -> None:
        with open(notes, encoding="utf-8") as lines:
            while not ended.wait(1.0):
                for line in lines:
                    say(f"  {line.rstrip()}")

    notes.touch()
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
