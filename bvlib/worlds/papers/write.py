"""Writes one split of a paper dataset as arrays on disk, a piece at a time, so that an interrupted
call can go on."""

from __future__ import annotations

import hashlib
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from PIL import Image

from bvlib.files.safe import write_json, write_whole
from bvlib.worlds.images import image_hash
from bvlib.worlds.papers.fetch import Progress
from bvlib.worlds.papers.source import Items

SPLITS = ("train", "dev", "test")
PARTS = ("images", "labels", "hashes", "rows")
CHUNK = 256  # images between two marks of how far a split is written
THREADS = 8  # images decoded at once, at most


def clip_square(image: Image.Image, size: int) -> np.ndarray:
    """An RGB image as CLIP sees it: (size, size, 3) uint8, short side resized (bicubic), then the
    square in the middle.

    The same pixels as torchvision's Resize and CenterCrop, which open_clip's evaluation transform
    uses.

    >>> clip_square(Image.new("RGB", (40, 30)), 8).shape
    (8, 8, 3)
    """
    width, height = image.size
    short = min(width, height)
    wide, high = (
        (size, int(size * height / width))
        if width <= height
        else (int(size * width / height), size)
    )
    if short != size:
        image = image.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def write_split(
    cache: Path,
    part: str,
    items: Items,
    size: int,
    avoid: dict[bytes, str],
    progress: Progress | None,
    key: str,
) -> dict:
    """Write ``part`` of a cache from ``items``; images whose hash is in ``avoid`` ({hash: name of
    its twin}) are left out.

    Gives {"count": images written, "left_out": [[name of an image left out, name of its twin],
    ...]}. Goes on from a draft that the same items, size, ``avoid`` and ``key`` left behind; the
    four files of the split appear only when it is whole.
    """
    trace, state = cache / f".{part}.json", {}
    text = f"{key} {size} {items.key()} {sorted(avoid)!r} {PIL.__version__}"
    key = hashlib.sha256(text.encode()).hexdigest()
    if trace.is_file():
        state = json.loads(trace.read_text(encoding="utf-8"))
    if state.get("key") != key:
        state = {"key": key, "next": 0, "written": 0, "left_out": [], "done": False}
    if state["done"]:
        return {"count": state["written"], "left_out": state["left_out"]}
    drafts = {kind: cache / f".{part}_{kind}.part" for kind in ("images", "hashes", "rows")}
    width = {"images": 3 * size * size, "hashes": 16, "rows": 8}
    if any(
        not draft.is_file()
        or draft.stat().st_size < _head(kind, size) + state["written"] * width[kind]
        for kind, draft in drafts.items()
    ):
        state |= {"next": 0, "written": 0, "left_out": []}
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
    files = {
        kind: draft.open("r+b" if draft.is_file() else "w+b") for kind, draft in drafts.items()
    }
    try:
        for kind, file in files.items():
            file.truncate(_head(kind, size) + state["written"] * width[kind])
            file.seek(0, os.SEEK_END)
        _append(files, items, size, avoid, progress, state, trace, f"{cache.name} {part}")
        files["images"].seek(0)
        files["images"].write(_header(state["written"], size))
    finally:
        for file in files.values():
            file.close()
    kept = np.fromfile(drafts["rows"], np.int64)
    rows = kept if items.rows is None else items.rows[kept].astype(np.int64)
    hashes = np.fromfile(drafts["hashes"], np.uint8).reshape(-1, 16)
    for kind, array in (("rows", rows), ("hashes", hashes), ("labels", items.labels[kept])):
        write_whole(cache / f"{part}_{kind}.npy", lambda draft, array=array: _save(draft, array))
    os.replace(drafts["images"], cache / f"{part}_images.npy")
    write_json(trace, state | {"done": True})
    for kind in ("hashes", "rows"):
        drafts[kind].unlink()
    return {"count": state["written"], "left_out": state["left_out"]}


def _append(
    files: dict[str, BinaryIO],
    items: Items,
    size: int,
    avoid: dict[bytes, str],
    progress: Progress | None,
    state: dict,
    trace: Path,
    what: str,
) -> None:
    def one(i: int) -> np.ndarray:
        return clip_square(items.read(i), size)

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        while state["next"] < len(items):
            chunk = range(state["next"], min(state["next"] + CHUNK, len(items)))
            for i, image in zip(chunk, pool.map(one, chunk)):
                if (mark := image_hash(image)) in avoid:
                    state["left_out"].append([items.name(i), avoid[mark]])
                    continue
                for kind, data in (
                    ("images", image.tobytes()),
                    ("hashes", mark),
                    ("rows", np.int64(i).tobytes()),
                ):
                    files[kind].write(data)
                state["written"] += 1
            for file in files.values():
                file.flush()
            state["next"] = chunk.stop
            write_json(trace, state)
            if progress:
                progress(what, chunk.stop, len(items))


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _header(count: int, size: int) -> bytes:
    """The head of an .npy file of ``count`` images; numpy pads it so that its length is the same
    for every count."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    )
    return head.getvalue()


def _head(kind: str, size: int) -> int:
    return len(_header(0, size)) if kind == "images" else 0
