"""Compute or load: every expensive result is made once and kept under a key that covers what
changes it.

The key is a hash of the arguments, of what the result was made from, of the versions of the
recipes that made it ("training:finetune/1") and of torch, open_clip and numpy, of the kind of
device and the number of threads. How the code is spelt and where it lies does not count: golden
values (:mod:`bvmake.golden`) tell when it gives something else. Files appear whole or not at
all: written beside their place, moved there, and their card (a small JSON file) last. A lock that
dies with its process keeps two runs from making the same thing twice. The store knows nothing of
notebooks, and importing it does not import torch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bvlib.core.errors import BvError, check_choice
from bvlib.core.registry import USED
from bvlib.core.versions import environment
from bvlib.files.digests import canonical, digest
from bvlib.files.safe import Taken, file_sha256, locked, read_json, write_json, write_whole
from bvlib.files.weights import card_of, read_metadata, read_tensors, write_tensors
from bvlib.files.weights import digest as content
from bvlib.run.formats import FORMATS

if TYPE_CHECKING:
    from bvlib.files.weights import StateDict

log = logging.getLogger("bvlib")
PARTS = ("kind", "name", "args", "inputs", "recipes")  # of a card: what decides the result, beside
COUNTED = ("torch", "open_clip_torch", "numpy", "device", "threads")  # these of its environment
KEEP_EVERY = 120.0  # seconds between two states of a long training


def key_of(card: Mapping[str, Any]) -> str:
    """The key that follows from a card: sha256 (64 hex digits). KeyError for a card that lacks a
    part."""
    counted = {part: card["environment"][part] for part in COUNTED}
    return digest({**{part: card[part] for part in PARTS}, "environment": counted})


def stem_of(name: str, key: str) -> str:
    """What the file of a name and key is called, without its ending."""
    return f"{re.sub(r'[^A-Za-z0-9_.=-]+', '_', name)}-{key[:16]}"


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
        card = {"content": content(tensors)}
        write_whole(self.path, lambda draft: write_tensors(draft, tensors, card))
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
        except Exception as error:  # whatever damage does to the reader, the cure is the same
            said = "%s is damaged, so what it was kept for starts anew: %s"
            log.warning(said, self.path.name, error)
            return None


@dataclass
class _Making:
    """A result that is being made: which ones it asked for, and the seconds it waited for them."""

    key: str
    nested: dict[str, float] = field(default_factory=dict)
    waited: float = 0.0


class Store:
    """A folder of results that are computed once and loaded ever after.

    `used` has what this process was served, by key: see `records()`.
    """

    def __init__(self, root: str | Path, device: str = "cpu", threads: int | None = None) -> None:
        self.root, self.device, self.threads = Path(root), device, threads
        self.used: dict[str, dict[str, Any]] = {}
        self._making: list[_Making] = []  # the last is made for the one before
        self._patient = True  # wait for what another process is making

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
        check_choice("kind of artefact", kind, FORMATS)
        started = time.perf_counter()
        card = {
            "kind": kind,
            "name": name,
            "args": json.loads(canonical(dict(args))),
            "inputs": [item.sha256 if isinstance(item, Artefact) else item for item in inputs],
            "recipes": sorted(recipes),
            "environment": environment(self.device, self.threads),
        }
        card["key"] = key_of(card)
        USED.update(recipes)
        if card["key"] in [each.key for each in self._making]:
            raise BvError(f"{name} needs itself: its computation asks the store for the same thing")
        path = self._path(card)
        artefact = self._load(card, path, quiet=True)
        if artefact is None:
            waiting = f"waiting for another process to make {name}"
            with locked(path.with_name(path.name + ".lock"), waiting, self._patient):
                artefact = self._load(card, path) or self._make(card, path, compute)
        self._count(card, artefact, time.perf_counter() - started)
        return artefact

    def each(self, makers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """{name: what its maker gets from this store}; what another process is making comes last.

        So processes that need the same results share out the making, in place of waiting for each
        other.
        """
        found, left = {}, dict(makers)
        while left:
            before = len(left)
            for name in list(left):
                with contextlib.suppress(Taken):
                    found[name] = self._at_once(left[name])
                    del left[name]
            if left and len(left) == before:
                name = next(iter(left))
                found[name] = left.pop(name)()
        return {name: found[name] for name in makers}

    def _at_once(self, make: Callable[[], Any]) -> Any:
        """What `make` gets; Taken if that means to wait for another process."""
        before, self._patient = self._patient, False
        try:
            return make()
        finally:
            self._patient = before

    def partial(self) -> Partial:
        """Where the computation that is being made may keep its state; forgotten once the result
        is there."""
        return Partial(self._partial_path(self._making[-1].key), KEEP_EVERY)

    def records(self) -> list[dict[str, Any]]:
        """What was used, for a run's JSON: one entry an artefact, `elapsed` summed over the calls
        from outside."""
        return list(self.used.values())

    def _path(self, card: Mapping[str, Any]) -> Path:
        file = f"{stem_of(card['name'], card['key'])}.{FORMATS[card['kind']][0]}"
        return self.root / card["kind"] / file

    def _partial_path(self, key: str) -> Path:
        return self.root / "partial" / f"{key}.safetensors"

    def _count(self, card: Mapping[str, Any], artefact: Artefact, elapsed: float) -> None:
        """Note a call: for the result that is being made, or in `used` if it came from outside."""
        told = {part: card[part] for part in ("kind", "name", "key")}
        told |= {part: getattr(artefact, part) for part in ("sha256", "seconds", "made", "nested")}
        told |= {"path": _short(artefact.path), "bytes": artefact.path.stat().st_size}
        entry = self.used.setdefault(artefact.key, {**told, "elapsed": 0.0})
        entry["made"] = entry["made"] or artefact.made
        if self._making:
            outer = self._making[-1]
            outer.nested |= {**artefact.nested, artefact.key: artefact.seconds}
            outer.waited += elapsed
        else:
            entry["elapsed"] += elapsed

    def _load(self, card: Mapping[str, Any], path: Path, quiet: bool = False) -> Artefact | None:
        """The artefact if file and card agree, else None; says why it is remade unless `quiet`."""
        if not path.exists():
            return None
        try:
            kept = read_json(card_of(path))
            if kept["key"] != card["key"] or kept["sha256"] != file_sha256(path):
                raise ValueError("it is not the file that its card describes")
            return _artefact(kept, path, made=False)
        except FileNotFoundError:
            problem = "its card is missing"
        except Exception as error:  # whatever damage does to the reader, the cure is the same
            problem = str(error) or type(error).__name__
        if not quiet:
            log.warning("%s is made again: %s", path.name, problem)
        return None

    def _make(self, card: dict[str, Any], path: Path, compute: Callable[[], Any]) -> Artefact:
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            leftover.unlink(missing_ok=True)
        making, started = _Making(card["key"]), time.perf_counter()
        self._making.append(making)
        try:
            value = compute()
        finally:
            self._making.pop()
        seconds = round(time.perf_counter() - started - making.waited, 3)
        write = FORMATS[card["kind"]][1]
        write_whole(path, lambda draft: write(draft, value))
        card |= {"file": path.name, "sha256": file_sha256(path)}
        card |= {"seconds": seconds, "nested": making.nested}
        write_json(card_of(path), card)
        self._partial_path(card["key"]).unlink(missing_ok=True)
        return _artefact(card, path, made=True)


def _artefact(card: Mapping[str, Any], path: Path, made: bool) -> Artefact:
    """A stored result with its value, read from its file."""
    value = FORMATS[card["kind"]][2](path)
    told = {part: card[part] for part in ("key", "sha256", "seconds", "nested")}
    return Artefact(value=value, path=path, made=made, **told)


def _short(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
