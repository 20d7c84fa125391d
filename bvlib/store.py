"""Compute or load: every expensive result is made once and kept under a key that covers what changes it.

The key is a hash of the arguments, of what the result was made from, of the code (syntax trees without
docstrings of the named modules and of all modules of the package that they import), of the versions, the
device type and the number of threads. Files appear whole or not at all: written beside their place, moved
there, and their card (a small JSON file) last. A lock that dies with its process keeps two runs from
making the same thing twice. The store knows nothing of notebooks, and importing it does not import torch.
"""

from __future__ import annotations

import ast
import dataclasses
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BadCheckpoint, BvError, unknown

if TYPE_CHECKING:
    from torch import Tensor

    StateDict = dict[str, Tensor]

log = logging.getLogger("bvlib")


# Hashes of values, files and code

def canonical(value: Any) -> str:
    """The one JSON text of a plain value: keys sorted, no spaces. BvError for what is not plain."""
    def plain(item: Any) -> Any:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return {type(item).__name__: dataclasses.asdict(item)}
        if isinstance(item, (set, frozenset)):
            return sorted(item)
        if getattr(item, "ndim", None) == 0 and hasattr(item, "item"):
            return item.item()
        raise BvError(f"a {type(item).__name__} cannot be part of a key: give plain values, "
                      "or the sha256 of what it holds")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=plain)


def digest(value: Any) -> str:
    """sha256 (64 hex digits) of a plain value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def file_sha256(path: str | Path) -> str:
    """sha256 (64 hex digits) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_hash(modules: Sequence[str]) -> str:
    """One hash of the code of `modules` and of every module of their package that they import, to the end.

    Comments, docstrings and layout do not count. BvError for a module that does not exist or parse.
    """
    return digest(code_parts(modules))


def code_parts(modules: Sequence[str]) -> dict[str, str]:
    """{module: hash of its syntax tree} for `modules` and all they import from the same package."""
    parts: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in parts:
            continue
        path = _source(module)
        if path is None:
            raise BvError(f"no source of module {module!r} to hash: name a module of the package in `code`")
        state = path.stat()
        parts[module], imports = _parsed(module, path, state.st_mtime_ns, state.st_size)
        waiting += imports
    return parts


def imported_modules(tree: ast.AST, package: str, within: str = "") -> list[str]:
    """The modules of `package` that a syntax tree imports, anywhere in it.

    `within` is the package that relative imports start from. `from package import name` counts as the
    submodule `name` when there is one, else as the package itself.
    """
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = within.split(".")[: len(within.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            if base.split(".")[0] != package:
                continue
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                found.add(submodule if _source(submodule) else base)
    return sorted(name for name in found if name.split(".")[0] == package and _source(name))


@functools.lru_cache(maxsize=1024)
def _parsed(module: str, path: Path, _mtime: int, _size: int) -> tuple[str, list[str]]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise BvError(f"{path.name} does not parse (line {error.lineno}): {error.msg}") from None
    is_package = path.name == "__init__.py"
    within = module if is_package else module.rpartition(".")[0]
    imports = imported_modules(tree, module.split(".")[0], within)
    if is_package:  # lazy attributes: an __init__ names its submodules in strings
        names = {node.value.lstrip(".") for node in ast.walk(tree)
                 if isinstance(node, ast.Constant) and isinstance(node.value, str)
                 and re.fullmatch(r"\.?[A-Za-z_][\w.]*", node.value)}
        for name in sorted(names):
            full = name if name.startswith(module + ".") else f"{module}.{name}"
            imports += [full] if _source(full) else []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) \
                    and isinstance(first.value.value, str):
                node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


def _source(module: str) -> Path | None:
    """The file of a module, found without importing it; None when there is none."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    for folder in spec.submodule_search_locations:
        base = Path(folder, *rest)
        for path in ([base.with_name(base.name + ".py")] if rest else []) + [base / "__init__.py"]:
            if path.is_file():
                return path
    return None


def environment(device: str = "cpu", threads: int | None = None) -> dict[str, Any]:
    """What a result depends on beside arguments and code: versions, device type, number of threads."""
    if threads is None:
        import torch
        threads = torch.get_num_threads()
    return {"python": ".".join(platform.python_version_tuple()[:2]), "machine": platform.machine(),
            **{name: _version(name) for name in ("torch", "open_clip_torch", "numpy")},
            "device": device.split(":")[0], "threads": threads}


@functools.cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"


# Locks and whole files

@contextmanager
def locked(path: Path, waiting: str = "") -> Iterator[None]:
    """Hold the lock file `path`, which dies with this process; say `waiting` (one line) if it is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting, file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` on a file beside `path`, then move it there: readers never see half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


# What can be stored

def _write_weights(path: Path, theta: StateDict, metadata: dict[str, str] | None = None) -> None:
    import torch
    from safetensors.torch import save_file

    wrong = [key for key, tensor in theta.items() if not isinstance(tensor, torch.Tensor)]
    if wrong:
        raise BvError(f"weights are a dict of tensors: {wrong[0]!r} is a {type(theta[wrong[0]]).__name__}")
    save_file({key: tensor.detach().cpu().contiguous().clone() for key, tensor in theta.items()},
              path, metadata=metadata)


def _read_weights(path: Path) -> StateDict:
    from safetensors.torch import load_file
    return load_file(path)


def _write_trigger(path: Path, value: tuple[StateDict, dict]) -> None:
    tensors, meta = value
    _write_weights(path, tensors, {"meta": canonical(meta)})


def _read_trigger(path: Path) -> tuple[StateDict, dict]:
    return _read_weights(path), json.loads(_metadata(path).get("meta", "{}"))


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _write_table(path: Path, table: Any) -> None:
    if not table.index.equals(type(table)(index=range(len(table))).index):
        raise BvError("a stored table has no index of its own: call .reset_index() first")
    table.to_csv(path, index=False)


def _read_table(path: Path) -> Any:
    import pandas
    return pandas.read_csv(path, keep_default_na=False, na_values=[""])


def _write_value(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_value(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


FORMATS: dict[str, tuple[str, Callable[[Path, Any], None], Callable[[Path], Any]]] = {
    "weights": ("safetensors", _write_weights, _read_weights),  # a state dict
    "trigger": ("safetensors", _write_trigger, _read_trigger),  # (dict of tensors, dict of plain values)
    "table": ("csv", _write_table, _read_table),                # a pandas DataFrame without an index
    "json": ("value.json", _write_value, _read_value),          # a plain value
}


@dataclass(frozen=True)
class Artefact:
    """A stored result: its value, where it lies, and the `seconds` its making took (without its parts)."""

    value: Any = field(repr=False)
    key: str
    path: Path
    sha256: str
    seconds: float
    made: bool
    nested: Mapping[str, float] = field(default_factory=dict, repr=False)


class Store:
    """A folder of results that are computed once and loaded ever after.

    `used` lists what this process was served, one entry a call; `records()` sums it up for a run's JSON.
    """

    def __init__(self, root: str | Path, device: str = "cpu", threads: int | None = None) -> None:
        self.root, self.device, self.threads = Path(root), device, threads
        self.used: list[dict[str, Any]] = []
        self._making: list[str] = []

    def get(self, kind: str, name: str, args: Mapping[str, Any], compute: Callable[[], Any], *,
            code: Sequence[str], inputs: Sequence[str | Artefact] = ()) -> Artefact:
        """Load the result of `compute`, or compute and keep it.

        `kind` is one of FORMATS; `args` are plain values that decide the result; `inputs` are artefacts or
        hashes of what it is made from; `code` names the modules whose code decides it. The value is always
        read back from its file, so the first call and the next give the same bits. BvError for an unknown
        kind and for arguments that are not plain; an error in `compute` leaves nothing behind.
        """
        if kind not in FORMATS:
            raise unknown("kind of artefact", kind, FORMATS)
        started = time.perf_counter()
        card = {"kind": kind, "name": name, "args": json.loads(canonical(dict(args))),
                "inputs": [item.sha256 if isinstance(item, Artefact) else item for item in inputs],
                "code": {"modules": list(code), "hash": code_hash(code)},
                "environment": environment(self.device, self.threads)}
        key = digest({**card, "code": card["code"]["hash"]})
        path = self.root / kind / f"{re.sub(r'[^A-Za-z0-9_.=-]+', '_', name)}-{key[:16]}.{FORMATS[kind][0]}"
        if key in self._making:
            raise BvError(f"{name} needs itself: its computation asks the store for the same thing")
        artefact = self._load(kind, key, path, quiet=True)
        if artefact is None:
            with locked(path.with_name(path.name + ".lock"), f"waiting for another process to make {name}"):
                artefact = self._load(kind, key, path) or self._make(kind, key, path, card, compute)
        self.used.append({"kind": kind, "name": name, "key": key, "path": _short(path),
                          "sha256": artefact.sha256, "bytes": path.stat().st_size,
                          "seconds": artefact.seconds, "made": artefact.made,
                          "nested": dict(artefact.nested), "depth": len(self._making),
                          "elapsed": time.perf_counter() - started})
        return artefact

    def records(self) -> list[dict[str, Any]]:
        """`used` for a run's JSON: one entry an artefact, `elapsed` summed over the calls from outside."""
        merged: dict[str, dict[str, Any]] = {}
        for entry in self.used:
            outer = entry["elapsed"] if entry["depth"] == 0 else 0.0
            kept = merged.setdefault(entry["key"], {**{k: v for k, v in entry.items() if k != "depth"},
                                                    "elapsed": 0.0})
            kept["elapsed"] += outer
            kept["made"] = kept["made"] or entry["made"]
        return list(merged.values())

    def _load(self, kind: str, key: str, path: Path, quiet: bool = False) -> Artefact | None:
        """The artefact if file and card agree, else None; says why it is remade unless `quiet`."""
        card_path = card_of(path)
        if not path.exists():
            return None
        try:
            card = json.loads(card_path.read_text(encoding="utf-8"))
            if card["key"] != key or card["sha256"] != file_sha256(path):
                raise ValueError("it is not the file that its card describes")
            return Artefact(FORMATS[kind][2](path), key, path, card["sha256"], card["seconds"], False,
                            card["nested"])
        except FileNotFoundError:
            problem = "its card is missing"
        except Exception as error:  # whatever a damaged file does to its reader, the cure is the same
            problem = str(error) or type(error).__name__
        if not quiet:
            log.warning("%s is made again: %s", path.name, problem)
        return None

    def _make(self, kind: str, key: str, path: Path, card: dict[str, Any],
              compute: Callable[[], Any]) -> Artefact:
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            leftover.unlink(missing_ok=True)
        mark, started = len(self.used), time.perf_counter()
        self._making.append(key)
        try:
            value = compute()
        finally:
            self._making.pop()
        inner, depth = self.used[mark:], len(self._making) + 1
        nested: dict[str, float] = {}
        for entry in inner:
            nested.update({**entry["nested"], entry["key"]: entry["seconds"]})
        seconds = time.perf_counter() - started - sum(e["elapsed"] for e in inner if e["depth"] == depth)
        _, write, read = FORMATS[kind]
        write_whole(path, lambda draft: write(draft, value))
        sha256 = file_sha256(path)
        write_json(card_of(path), {**card, "key": key, "file": path.name, "sha256": sha256,
                                   "seconds": round(seconds, 3), "nested": nested})
        return Artefact(read(path), key, path, sha256, round(seconds, 3), True, nested)


def card_of(path: Path) -> Path:
    """Where the card of a file lies: `name.json` beside `name.safetensors`."""
    stem = path.name.removesuffix(".value.json") if path.name.endswith(".value.json") else path.stem
    return path.with_name(stem + ".json")


def _short(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


# Weight files of one's own

def save_weights(path: str | Path, theta: StateDict, card: Mapping[str, Any] | None = None) -> None:
    """Write a state dict as safetensors, and its card (plain values, plus the file's sha256) beside it."""
    path = _weights_path(path)
    write_whole(path, lambda draft: _write_weights(draft, theta))
    write_json(card_of(path), {**(card or {}), "sha256": file_sha256(path)})


def load_weights(path: str | Path) -> tuple[StateDict, dict[str, Any]]:
    """(state dict, card) of a safetensors file; the card is {} when there is none.

    BadCheckpoint for another format, a missing, cut short or damaged file, or one that differs from its card.
    """
    path = _weights_path(path)
    if not path.is_file():
        raise BadCheckpoint(f"no weight file {path}: check the path, or make it first")
    card = json.loads(card_of(path).read_text(encoding="utf-8")) if card_of(path).is_file() else {}
    if card.get("sha256") not in (None, file_sha256(path)):
        raise BadCheckpoint(f"{path} is not the file that its card {card_of(path).name} describes "
                            "(its sha256 differs): copy or make it again")
    try:
        return _read_weights(path), card
    except Exception as error:  # safetensors raises its own error and OSError alike
        reason = str(error).splitlines()[0]
        raise BadCheckpoint(f"{path} is cut short or no safetensors file ({reason}): copy or make it again") \
            from None


def check_matches(theta: StateDict, reference: StateDict, name: str = "checkpoint") -> None:
    """BadCheckpoint naming the first tensor that is missing from `theta`, unexpected, or of another shape."""
    mend = "was it made for another encoder?"
    for key, tensor in reference.items():
        if key not in theta:
            raise BadCheckpoint(f"{name} lacks the tensor {key!r}: {mend}")
        if theta[key].shape != tensor.shape:
            raise BadCheckpoint(f"{name}: {key!r} has shape {tuple(theta[key].shape)}, "
                                f"the encoder wants {tuple(tensor.shape)}: {mend}")
    extra = [key for key in theta if key not in reference]
    if extra:
        raise BadCheckpoint(f"{name} has a tensor {extra[0]!r} that the encoder does not know: {mend}")


def _weights_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise BadCheckpoint(f"{path.name} is refused: only .safetensors is read and written, as other "
                            "formats can run code when loaded. Convert it once: safetensors.torch.save_file("
                            "torch.load(path, weights_only=True), 'name.safetensors')")
    return path
