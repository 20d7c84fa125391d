"""Runs notebooks through papermill: names checked first, finished work skipped, one line where it
stops.

Each notebook runs in a fresh kernel of this very Python, in the folder above `notebooks/`, and
leaves its executed copy in `runs/<profile>/seed-<seed>/`. A record of what it depended on and what
it made (in `.records/`) lets a later call skip it in milliseconds; neither that check nor
importing this module imports torch or papermill. Parameters other than the defaults go to a folder
of their own, `seed-0+1a2b3c4d/`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bvlib.core.errors import BvError
from bvlib.files.digests import canonical, code_parts, digest
from bvlib.files.safe import file_sha256, locked, write_json, write_whole
from bvlib.run import settings
from bvlib.run.notebooks import (
    Notebook,
    cell_text,
    check_parameters,
    find,
    out_folder,
    read_cells,
    root_folder,
    shown,
)
from bvlib.run.store import environment

Say = Callable[[str], Any]


class NotebookFailed(BvError):
    """A notebook stopped with an error that is no BvError: a mistake in the notebook or in
    bvlib."""


# What a run depends on


def fingerprint(
    notebook: Notebook, profile: str, seed: int, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """All that decides what the notebook gives, by part: its hash is the key of the run's
    record."""
    chosen = settings.load(profile)
    return {
        "notebook": digest(notebook.code),
        "parameters": dict(parameters),
        "seed": seed,
        "profile": {"name": profile, "content": chosen},
        "code": code_parts(notebook.modules()),
        "files": {
            name: file_sha256(path)
            for name, path in _input_files({**chosen, **parameters}).items()
        },
        "data": None if chosen.get("world") == "toy" else _data_state(),
        "environment": _environment(),
    }


def _input_files(settings: Any) -> dict[str, Path]:
    """Files that a profile names: a path below the repository or the package, or `base: <shipped
    base>`."""
    package, found = Path(__file__).resolve().parents[1], {}
    if isinstance(settings, dict) and isinstance(settings.get("base"), str):
        found.update(
            (path.name, path)
            for path in sorted((package / "worlds" / "weights").iterdir())
            if path.name.startswith((f"{settings['base']}.", "bpe"))
        )
    for leaf in _strings(settings):
        for folder in (root_folder(), package):
            if (
                ("/" in leaf or leaf.endswith(".safetensors"))
                and len(leaf) < 200
                and (folder / leaf).is_file()
            ):
                found[leaf] = folder / leaf
    return found


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)


def _data_state() -> dict[str, Any] | None:
    """Name, size and time of what lies in the data folder and in its folders (two levels)."""
    folder = Path(os.environ.get("BVLIB_DATA") or root_folder() / "data")
    if not folder.is_dir():
        return None
    paths = sorted(
        path
        for pattern in ("*", "*/*", "paper/*/card.json")
        for path in folder.glob(pattern)
        if path.is_file()
    )
    return {
        str(path.relative_to(folder)): [path.stat().st_size, path.stat().st_mtime_ns]
        for path in paths
    }


def _environment() -> dict[str, Any]:
    """environment() of the store without importing torch: threads and device as torch will find
    them."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "BVLIB_DEVICE")
    settings = {name: os.environ[name] for name in names if name in os.environ}
    gpu = "cuda" if Path("/proc/driver/nvidia/version").exists() else "cpu"
    return {
        **environment(
            gpu,
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        ),
        **settings,
        "papermill": importlib.metadata.version("papermill"),
    }


# Records: what a run was made from and what it made


@dataclass(frozen=True)
class RunRecord:
    """What became of one notebook: `status` is "made" or "up to date"; `wall` and `cold` are
    seconds.

    `cold` is the time as if nothing had been stored before; an up-to-date run repeats its first
    times.
    """

    notebook: str
    profile: str
    seed: int
    out: Path
    key: str
    status: str
    reason: str
    wall: float
    cold: float


def _state(path: Path, base: Path) -> dict[str, Any]:
    state = path.stat()
    return {
        "path": shown(path, base),
        "bytes": state.st_size,
        "mtime_ns": state.st_mtime_ns,
        "sha256": file_sha256(path),
    }


def _stale(entry: Mapping[str, Any], base: Path) -> bool:
    """Whether a recorded file is gone or changed (its hash is read again only if size or time
    tell)."""
    try:
        state = (base / entry["path"]).stat()
        return state.st_size != entry["bytes"] or (
            state.st_mtime_ns != entry["mtime_ns"]
            and file_sha256(base / entry["path"]) != entry["sha256"]
        )
    except OSError:
        return True


def _why(
    record: Mapping[str, Any] | None, parts: Mapping[str, Any], out: Path, notebook: str
) -> str:
    """Why a notebook has to run, in words; empty when all is there and up to date."""
    if record is None:
        return "not run yet"
    old = record["parts"]
    if record["key"] != digest(parts):
        changed = [part for part in parts if canonical(old.get(part)) != canonical(parts[part])]
        if changed == ["code"]:
            modules = sorted(
                m
                for m in {*old["code"], *parts["code"]}
                if old["code"].get(m) != parts["code"].get(m)
            )
            return f"changed: {', '.join(modules)}"
        return f"changed: {', '.join(changed)}"
    if not (out / f"{notebook}.ipynb").is_file():
        return f"missing: {notebook}.ipynb"
    for part, base in (("artefacts", root_folder()), ("outputs", out)):
        for entry in record[part]:
            if _stale(entry, base):
                return f"missing or changed: {Path(entry['path']).name}"
    return ""


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


# Running


def run(
    notebooks: Sequence[str] | None = None,
    profile: str = "mini",
    seed: int = 0,
    parameters: Mapping[str, Any] | None = None,
    force: bool = False,
    say: Say | None = None,
) -> list[RunRecord]:
    """Run notebooks (all by default) in order; those whose record still holds are skipped.

    All names are checked before anything runs. `force` runs also what is up to date (stored
    results are loaded as ever). `say` gets the progress, line by line. BvError for an unknown
    notebook, profile or parameter, and for whatever a notebook raises as a BvError; NotebookFailed
    for any other error in it.
    """
    say = say or (lambda line: print(line, flush=True))
    settings.load(profile)
    chosen = find(notebooks)
    passed = check_parameters(chosen, parameters or {})
    out = out_folder(profile, seed, parameters)
    return [
        _run_one(notebook, profile, seed, passed[notebook.name], out, force, say)
        for notebook in chosen
    ]


def up_to_date(
    notebooks: Sequence[str], profile: str, seed: int, parameters: Mapping[str, Any] | None = None
) -> bool:
    """Whether :func:`run` with these arguments would find nothing to do."""
    chosen = find(notebooks)
    passed, out = check_parameters(chosen, parameters or {}), out_folder(profile, seed, parameters)
    return not any(
        _why(
            _read_json(out / ".records" / f"{n.name}.json"),
            fingerprint(n, profile, seed, passed[n.name]),
            out,
            n.name,
        )
        for n in chosen
    )


def _run_one(
    notebook: Notebook,
    profile: str,
    seed: int,
    parameters: dict[str, Any],
    out: Path,
    force: bool,
    say: Say,
) -> RunRecord:
    records, name = out / ".records", notebook.name
    with locked(records / f"{name}.lock", f"{name}: waiting for another run of it"):
        parts = fingerprint(notebook, profile, seed, parameters)
        record = _read_json(records / f"{name}.json")
        reason = _why(record, parts, out, name) or ("forced" if force else "")
        if reason:
            say(f"{name}: running ({profile}, seed {seed}; {reason})")
            record = _make(notebook, parts, profile, seed, parameters, out, say)
            say(
                f"{name}: done in {record['wall']:.0f} s"
                + (
                    f" ({record['cold']:.0f} s from nothing)"
                    if record["cold"] > record["wall"] + 2
                    else ""
                )
            )
        else:
            _refresh_prose(notebook, out / f"{name}.ipynb")
            say(f"{name}: up to date")
    return RunRecord(
        name,
        profile,
        seed,
        out,
        record["key"],
        "made" if reason else "up to date",
        reason,
        record["wall"],
        record["cold"],
    )


def _make(
    notebook: Notebook,
    parts: dict[str, Any],
    profile: str,
    seed: int,
    parameters: dict[str, Any],
    out: Path,
    say: Say,
) -> dict[str, Any]:
    """Run one notebook and write its record."""
    name, result_path = notebook.name, out / f"{notebook.name}.json"
    before = result_path.stat().st_mtime_ns if result_path.exists() else None
    ours = {"profile": profile, "seed": seed, "out": shown(out, root_folder())}
    ours = {key: value for key, value in ours.items() if key in notebook.parameters}
    (out / ".records" / f"{name}.json").unlink(missing_ok=True)
    started = time.perf_counter()
    _execute(notebook, {**ours, **parameters}, out, say)
    wall = time.perf_counter() - started
    fresh = result_path.exists() and result_path.stat().st_mtime_ns != before
    result = (_read_json(result_path) if fresh else None) or {}
    used = result.get("artefacts", [])
    own = wall - sum(item.get("elapsed", 0.0) for item in used)
    outputs = [out / path for path in result.get("outputs", [])] + ([result_path] if fresh else [])
    artefacts = [root_folder() / item["path"] for item in used]
    gone = [path for path in outputs + artefacts if not path.is_file()]
    if gone:
        raise BvError(f"{name} says that it made {shown(gone[0])}, but the file is not there")
    record = {
        "notebook": name,
        "key": digest(parts),
        "parts": parts,
        "outputs": [_state(path, out) for path in outputs],
        "artefacts": [_state(path, root_folder()) for path in artefacts],
        "wall": round(wall, 2),
        "own": round(own, 2),
        "cold": round(own + sum(artefact_seconds(used).values()), 2),
    }
    write_json(out / ".records" / f"{name}.json", record)
    return record


def artefact_seconds(used: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """{key: seconds of making} of the artefacts that a run used, those inside others included,
    each once."""
    seconds: dict[str, float] = {}
    for item in used:
        seconds.update(item.get("nested", {}))
        seconds[item.get("key", item["path"])] = item.get("seconds", 0.0)
    return seconds


def _execute(notebook: Notebook, parameters: dict[str, Any], out: Path, say: Say) -> None:
    """Execute into `<out>/<name>.ipynb`; what was reached before an error goes to
    `<name>.failed.ipynb`."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    name, partial = notebook.name, out / ".records" / f"{notebook.name}.running.ipynb"
    failed, log = out / f"{name}.failed.ipynb", out / ".records" / f"{notebook.name}.log"
    partial.unlink(missing_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="bv-") as scratch,
            open(log, "w") as printed,
            _progress(partial, Path(scratch) / "notes", say),
        ):
            environ = {
                **os.environ,
                "IPYTHONDIR": str(Path(scratch) / "ipython"),
                "BVLIB_PROGRESS": str(Path(scratch) / "notes"),
            }
            papermill.execute_notebook(
                str(notebook.path),
                str(partial),
                parameters=parameters,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=str(root_folder()),
                start_timeout=180,
                kernel_manager_class=_kernel_of_this_python(environ, printed),
            )
    except PapermillExecutionError as error:
        _finish(partial, failed, notebook)
        if error.traceback == [f"{error.ename}: {error.evalue}"]:  # how a BvError renders itself
            raise BvError(error.evalue) from None
        traceback = "\n".join(error.traceback)
        print(
            traceback if sys.stderr.isatty() else re.sub(r"\x1b\[[0-9;]*m", "", traceback),
            file=sys.stderr,
        )
        raise NotebookFailed(
            f"{name} stopped at In [{error.exec_count}] with {error.ename}: "
            f"{(error.evalue.splitlines() or [''])[0]} (see {shown(failed)})"
        ) from None
    except DeadKernelError:
        _finish(partial, failed, notebook)
        raise BvError(
            f"the kernel of {name} died, perhaps for lack of memory: what was computed is kept, "
            f"run it again (its last words: {shown(log)})"
        ) from None
    except BaseException:
        if partial.exists():
            _finish(partial, failed, notebook)
        raise
    _finish(partial, out / f"{name}.ipynb", notebook)
    failed.unlink(missing_ok=True)


def _finish(partial: Path, target: Path, notebook: Notebook) -> None:
    """Move an executed notebook to its place, without paths of this machine in its metadata."""
    content = _read_json(partial)
    if content is not None:
        content["metadata"].get("papermill", {}).update(
            input_path=notebook.path.name, output_path=target.name, environment_variables={}
        )
        _write_notebook(target, content)
    partial.unlink(missing_ok=True)


def _write_notebook(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def _refresh_prose(notebook: Notebook, executed: Path) -> None:
    """Carry edited prose into the executed copy of an up-to-date notebook; code and outputs
    stay."""
    content = _read_json(executed)
    source = read_cells(notebook.path)
    if content is None:
        return
    done = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    injected = [cell for cell in done if "injected-parameters" in cell["metadata"].get("tags", [])]
    by_source = iter([cell for cell in done if cell not in injected])
    merged: list[dict[str, Any]] = []
    for cell in source:
        merged.append(next(by_source, cell) if cell["cell_type"] == "code" else cell)
        if "parameters" in cell["metadata"].get("tags", []):
            merged += injected
    if [cell_text(cell) for cell in merged] != [cell_text(cell) for cell in content["cells"]]:
        _write_notebook(executed, {**content, "cells": merged})


def _kernel_of_this_python(environ: Mapping[str, str], log: Any) -> type:
    """A kernel manager that starts this interpreter, whatever kernels the user has installed.

    What the kernel process itself prints (not the cells' output) goes to the file `log`.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(**get_kernel_dict())

        async def start_kernel(self, **options: Any) -> None:
            await super().start_kernel(env=dict(environ), stdout=log, stderr=log, **options)

    return ThisPython


@contextmanager
def _progress(partial: Path, notes: Path, say: Say, every: float = 1.0) -> Iterator[None]:
    """Say what a running notebook is at: its section, from the copy that papermill keeps saving,
    and the
    lines that the notebook appends to the file `notes` (named to it by BVLIB_PROGRESS)."""
    started, stop, last = time.perf_counter(), threading.Event(), [""]

    def look() -> None:
        cells = (_read_json(partial) or {}).get("cells", [])
        running = [
            i
            for i, cell in enumerate(cells)
            if cell["metadata"].get("papermill", {}).get("status") == "running"
        ]
        if not running:
            return
        headings = [
            line.lstrip("# ")
            for cell in cells[: running[-1] + 1]
            if cell["cell_type"] == "markdown"
            for line in cell_text(cell).splitlines()
            if re.match(r"#{1,3} ", line)
        ]
        section = headings[-1] if headings else "running"
        if section != last[0]:
            last[0] = section
            seconds = time.perf_counter() - started
            say(f"  {seconds:4.0f} s  cell {running[-1] + 1} of {len(cells)}: {section}")

    def watch() -> None:
        seen, told = 0, 0
        while not stop.wait(every):
            changed = partial.stat().st_mtime_ns if partial.exists() else 0
            if changed != seen:
                seen = changed
                look()
            lines = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
            for line in lines[told:]:
                say(f"  {time.perf_counter() - started:4.0f} s    {line}")
            told = len(lines)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
