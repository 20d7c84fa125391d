"""Compute or load: every expensive result is made once and kept under a key that covers what
changes it.

The key is a hash of the arguments, of what the result was made from, of the versions of the
recipes that made it ("training:finetune/1") and of torch, open_clip and numpy, of the kind of
device and the number of threads. How the code is spelt and where it lies does not count: golden
values (:mod:`bvlib.report.golden`) tell when it gives something else. Files appear whole or not at
all: written beside their place, moved there, and their card (a small JSON file) last. A lock that
dies with its process keeps two runs from making the same thing twice. The store knows nothing of
notebooks, and importing it does not import torch.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bvlib.core.errors import BvError, unknown
from bvlib.core.registry import USED
from bvlib.core.versions import environment
from bvlib.files.digests import canonical, digest
from bvlib.files.safe import file_sha256, locked, write_json, write_whole
from bvlib.files.weights import card_of, read_metadata, read_tensors, write_tensors
from bvlib.files.weights import digest as content

if TYPE_CHECKING:
    from bvlib.files.weights import StateDict

log = logging.getLogger("bvlib")
PARTS = ("kind", "name", "args", "inputs", "recipes")  # of a card: what decides the result, beside
COUNTED = ("torch", "open_clip_torch", "numpy", "device", "threads")  # these of its environment
KEEP_EVERY = 120.0  # seconds between two states of a long training


# What can be stored


def _write_trigger(path: Path, value: tuple[StateDict, dict]) -> None:
    tensors, meta = value
    write_tensors(path, tensors, {"meta": canonical(meta)})


def _read_trigger(path: Path) -> tuple[StateDict, dict]:
    return read_tensors(path), json.loads(read_metadata(path).get("meta", "{}"))


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
    "weights": ("safetensors", write_tensors, read_tensors),  # a state dict
    "trigger": (
        "safetensors",
        _write_trigger,
        _read_trigger,
    ),  # (dict of tensors, dict of plain values)
    "table": ("csv", _write_table, _read_table),  # a pandas DataFrame without an index
    "json": ("value.json", _write_value, _read_value),  # a plain value
}


def key_of(card: Mapping[str, Any]) -> str:
    """The key that follows from a card: sha256 (64 hex digits). KeyError for a card that lacks a
    part."""
    counted = {part: card["environment"][part] for part in COUNTED}
    return digest({**{part: card[part] for part in PARTS}, "environment": counted})


@dataclass(frozen=True)
class Artefact:
    """A stored result: its value, where it lies, and the `seconds` its making took (without its
    parts)."""

    value: Any = field(repr=False)
    key: str
    path: Path
    sha256: str
    seconds: float
    made: bool
    nested: Mapping[str, float] = field(default_factory=dict, repr=False)


class Partial:
    """A file in which a long computation keeps its state every so often, so that it goes on there
    when it was cut off."""

    def __init__(self, path: Path, every: float) -> None:
        self.path, self.every, self._last = path, every, time.monotonic()

    def due(self) -> bool:
        """Has it been ``every`` seconds since the state was kept?"""
        return time.monotonic() - self._last >= self.every

    def save(self, tensors: StateDict) -> None:
        """Keep a state in place of the one before."""
        write_whole(
            self.path, lambda draft: write_tensors(draft, tensors, {"content": content(tensors)})
        )
        self._last = time.monotonic()

    def load(self) -> StateDict | None:
        """The state that was kept last; None when there is none, or (with a warning) when it is
        damaged."""
        if not self.path.exists():
            return None
        try:
            tensors = read_tensors(self.path)
            if read_metadata(self.path).get("content") != content(tensors):
                raise ValueError("its content is not what was written")
            return tensors
        except (
            Exception
        ) as error:  # whatever a damaged file does to its reader, the cure is the same
            log.warning(
                "%s is damaged, so what it was kept for starts anew: %s", self.path.name, error
            )
            return None


class Store:
    """A folder of results that are computed once and loaded ever after.

    `used` lists what this process was served, one entry a call; `records()` sums it up for a run's
    JSON.
    """

    def __init__(self, root: str | Path, device: str = "cpu", threads: int | None = None) -> None:
        self.root, self.device, self.threads = Path(root), device, threads
        self.used: list[dict[str, Any]] = []
        self._making: list[str] = []

    def get(
        self,
        kind: str,
        name: str,
        args: Mapping[str, Any],
        compute: Callable[[], Any],
        *,
        recipes: Sequence[str],
        inputs: Sequence[str | Artefact] = (),
    ) -> Artefact:
        """Load the result of `compute`, or compute and keep it.

        `kind` is one of FORMATS; `args` are plain values that decide the result; `inputs` are
        artefacts or hashes of what it is made from; `recipes` name what makes it, with versions
        ("training:finetune/1"). The value is always read back from its file, so the first call and
        the next give the same bits. BvError for an unknown kind and for arguments that are not
        plain; an error in `compute` leaves nothing behind.
        """
        if kind not in FORMATS:
            raise unknown("kind of artefact", kind, FORMATS)
        started = time.perf_counter()
        card = {
            "kind": kind,
            "name": name,
            "args": json.loads(canonical(dict(args))),
            "inputs": [item.sha256 if isinstance(item, Artefact) else item for item in inputs],
            "recipes": sorted(recipes),
            "environment": environment(self.device, self.threads),
        }
        key = key_of(card)
        USED.update(recipes)
        path = (
            self.root
            / kind
            / f"{re.sub(r'[^A-Za-z0-9_.=-]+', '_', name)}-{key[:16]}.{FORMATS[kind][0]}"
        )
        if key in self._making:
            raise BvError(f"{name} needs itself: its computation asks the store for the same thing")
        artefact = self._load(kind, key, path, quiet=True)
        if artefact is None:
            with locked(
                path.with_name(path.name + ".lock"), f"waiting for another process to make {name}"
            ):
                artefact = self._load(kind, key, path) or self._make(kind, key, path, card, compute)
        self.used.append(
            {
                "kind": kind,
                "name": name,
                "key": key,
                "path": _short(path),
                "sha256": artefact.sha256,
                "bytes": path.stat().st_size,
                "seconds": artefact.seconds,
                "made": artefact.made,
                "nested": dict(artefact.nested),
                "depth": len(self._making),
                "elapsed": time.perf_counter() - started,
            }
        )
        return artefact

    def partial(self) -> Partial:
        """Where the computation that is being made may keep its state; forgotten once the result
        is there."""
        return Partial(self.root / "partial" / f"{self._making[-1]}.safetensors", KEEP_EVERY)

    def records(self) -> list[dict[str, Any]]:
        """`used` for a run's JSON: one entry an artefact, `elapsed` summed over the calls from
        outside."""
        merged: dict[str, dict[str, Any]] = {}
        for entry in self.used:
            outer = entry["elapsed"] if entry["depth"] == 0 else 0.0
            kept = merged.setdefault(
                entry["key"], {**{k: v for k, v in entry.items() if k != "depth"}, "elapsed": 0.0}
            )
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
            return Artefact(
                FORMATS[kind][2](path),
                key,
                path,
                card["sha256"],
                card["seconds"],
                False,
                card["nested"],
            )
        except FileNotFoundError:
            problem = "its card is missing"
        except (
            Exception
        ) as error:  # whatever a damaged file does to its reader, the cure is the same
            problem = str(error) or type(error).__name__
        if not quiet:
            log.warning("%s is made again: %s", path.name, problem)
        return None

    def _make(
        self, kind: str, key: str, path: Path, card: dict[str, Any], compute: Callable[[], Any]
    ) -> Artefact:
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
        seconds = (
            time.perf_counter() - started - sum(e["elapsed"] for e in inner if e["depth"] == depth)
        )
        _, write, read = FORMATS[kind]
        write_whole(path, lambda draft: write(draft, value))
        sha256 = file_sha256(path)
        write_json(
            card_of(path),
            {
                **card,
                "key": key,
                "file": path.name,
                "sha256": sha256,
                "seconds": round(seconds, 3),
                "nested": nested,
            },
        )
        (self.root / "partial" / f"{key}.safetensors").unlink(missing_ok=True)
        return Artefact(read(path), key, path, sha256, round(seconds, 3), True, nested)


def _short(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
