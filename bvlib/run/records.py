"""What a run depends on, what it made, and whether that still holds.

The record of a run lies in `.records/<notebook>.json` of its folder. Checking it takes
milliseconds and imports no torch.
"""

import importlib.metadata
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bvlib.core.errors import BvError
from bvlib.core.versions import environment, raised
from bvlib.files.digests import canonical, digest
from bvlib.files.safe import file_sha256, read_json_if, write_json
from bvlib.run import notebooks, settings
from bvlib.run.notebooks import Notebook, root_folder, shown

Say = Callable[[str], Any]  # tells a line of progress
PASSED_ON = ("CUDA_VISIBLE_DEVICES", "BVLIB_DEVICE")


@dataclass(frozen=True)
class Job:
    """One notebook to run: ``parameters`` are those of it that are given, ``point`` all that are
    given, which name ``out``, the folder where it goes."""

    notebook: Notebook
    profile: str
    seed: int
    parameters: Mapping[str, Any]
    out: Path
    point: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The notebook's name."""
        return self.notebook.name

    def path(self, ending: str) -> Path:
        """``<out>/<name>.<ending>``: its executed copy, its result."""
        return self.out / f"{self.name}.{ending}"

    def hidden(self, ending: str) -> Path:
        """``<out>/.records/<name>.<ending>``: its record, its lock, its log."""
        return self.out / ".records" / f"{self.name}.{ending}"


def jobs(
    names: Sequence[str] | None, profile: str, seed: int, given: Mapping[str, Any] | None = None
) -> list[Job]:
    """The notebooks of these names (those that are not long by default), in order, with the
    parameters that are given.

    BvError for an unknown notebook, profile or parameter.
    """
    usual = settings.load(profile)
    settings.check("seed", seed)
    chosen = notebooks.find(names)
    passed = notebooks.check_parameters(chosen, given or {})
    for each in chosen:
        own = {name: value for name, value in passed[each.name].items() if value is not None}
        if own.keys() & {"tasks", "adversary"} and "adversary" in each.parameters:
            settings.check_tasks({**usual, **own})
    out = notebooks.out_folder(profile, seed, given)
    return [Job(each, profile, seed, passed[each.name], out, given or {}) for each in chosen]


# What a run depends on


def fingerprint(job: Job) -> dict[str, Any]:
    """All that decides what the notebook gives, by part: its hash is the key of the run's
    record."""
    content = settings.load(job.profile)
    files = input_files({**content, **job.parameters})
    return {
        "notebook": digest(job.notebook.code),
        "parameters": dict(job.parameters),
        "seed": job.seed,
        "profile": {"name": job.profile, "content": content},
        "plugins": {path.name: file_sha256(path) for path in notebooks.plugin_files()},
        "files": {name: file_sha256(path) for name, path in files.items()},
        "data": _data_state({*_strings({**content, **job.parameters})}),
        "environment": _environment(settings.resources(job.profile).threads),
    }


def input_files(settings: Mapping[str, Any]) -> dict[str, Path]:
    """Files that the settings name: a path below the repository, or `base: <shipped base>`."""
    shipped = sorted((Path(__file__).parents[1] / "worlds" / "weights").iterdir())
    own = (f"{settings.get('base')}.", "bpe")
    found = {path.name: path for path in shipped if path.name.startswith(own)}
    for text in _strings(settings):
        named = ("/" in text or text.endswith(".safetensors")) and len(text) < 200
        if named and (root_folder() / text).is_file():
            found[text] = root_folder() / text
    return found


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)


def _data_state(named: Collection[str]) -> dict[str, Any]:
    """Digests of the prepared datasets that the settings name, in whatever world."""
    folder = Path(os.environ.get("BVLIB_DATA") or root_folder() / "data").expanduser()
    paths = {path: path.stem for end in ("npz", "yaml") for path in folder.glob(f"*.{end}")}
    paths |= {path: path.parent.name for path in folder.glob("paper/*/card.json")}
    there = [path for path in sorted(paths) if paths[path] in named]
    state = {path: path.stat() for path in there}
    return {
        str(path.relative_to(folder)): _sha256(path, state[path].st_size, state[path].st_mtime_ns)
        for path in there
    }


@cache
def _sha256(path: Path, size: int, time: int) -> str:
    """The digest of a file with this size and time, read once a process."""
    return file_sha256(path)


def _environment(threads: int | None) -> dict[str, Any]:
    """environment() of the store without importing torch: the device as torch will find it."""
    gpu = "cuda" if Path("/proc/driver/nvidia/version").exists() else "cpu"
    return {
        **environment(gpu, threads),
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "papermill": importlib.metadata.version("papermill"),
    }


# What a run made


def why(record: Mapping[str, Any] | None, parts: Mapping[str, Any], job: Job) -> str:
    """Why a notebook has to run, in words; empty when all is there and up to date."""
    if record is None:
        return "not run yet"
    old, new = (_deciding(each, record) for each in (record["parts"], parts))
    if changed := [part for part in new if canonical(old.get(part)) != canonical(new[part])]:
        return f"changed: {', '.join(changed)}"
    if moved := raised(record["recipes"]):
        return f"raised recipe: {', '.join(moved)}"
    if not job.path("ipynb").is_file():
        return f"missing: {job.name}.ipynb"
    for part, folder in {"artefacts": root_folder(), "outputs": job.out}.items():
        for entry in record[part]:
            if _changed(folder / entry["path"], entry):
                return f"missing or changed: {Path(entry['path']).name}"
    return ""


def _deciding(parts: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """What a run depends on, without the settings of its profile that it did not ask for, as its
    ``record`` tells."""
    profile, known = parts["profile"], record["parts"]["profile"]["content"]
    content = settings.deciding(profile["content"], record.get("read"), known)
    return {**parts, "profile": {**profile, "content": content}}


def stale(job: Job) -> str:
    """Why a notebook has to run, as its record tells it; empty when it is up to date."""
    return why(read_json_if(job.hidden("json")), fingerprint(job), job)


def _changed(path: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a recorded file is gone or changed (read again only if its size or time tell)."""
    if not path.is_file():
        return True
    now = path.stat()
    if (now.st_size, now.st_mtime_ns) == (entry["bytes"], entry["mtime_ns"]):
        return False
    return file_sha256(path) != entry["sha256"]


def _states(job: Job, paths: Iterable[Path], base: Path) -> list[dict[str, Any]]:
    """What tells later whether files of a run were changed. BvError for one that is not there."""
    states = []
    for path in paths:
        if not path.is_file():
            raise BvError(f"{job.name} says that it made {shown(path)}, but the file is not there")
        now, name = path.stat(), shown(path, base)
        state = {"path": name, "bytes": now.st_size, "mtime_ns": now.st_mtime_ns}
        states.append({**state, "sha256": file_sha256(path)})
    return states


def write(job: Job, parts: Mapping[str, Any], wall: float) -> dict[str, Any]:
    """Write the record of a run that has just ended, from the result that it left.

    ``wall`` are the seconds it took. ``own`` are those without its stored results, ``cold`` those
    as if nothing had been stored before. BvError for a file that the result names but that is not
    there.
    """
    result = read_json_if(job.path("json")) or {}
    outputs = [*result.get("outputs", []), job.path("json").name] if result else []
    used = result.get("artefacts", [])
    own = wall - sum(item.get("elapsed", 0.0) for item in used)
    root = root_folder()
    record = {
        "notebook": job.name,
        "parts": parts,
        "read": result.get("read"),
        "recipes": result.get("recipes", []),
        "outputs": _states(job, [job.out / path for path in outputs], job.out),
        "artefacts": _states(job, [root / item["path"] for item in used], root),
        "wall": round(wall, 2),
        "own": round(own, 2),
        "cold": round(own + sum(artefact_seconds(used).values()), 2),
    }
    write_json(job.hidden("json"), record)
    return record


def artefact_seconds(used: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """{key: seconds of making} of the artefacts that a run used, those inside others included,
    each once."""
    seconds: dict[str, float] = {}
    for item in used:
        seconds.update(item.get("nested", {}))
        seconds[item.get("key", item["path"])] = item.get("seconds", 0.0)
    return seconds
