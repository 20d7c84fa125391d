"""Writes one split of a paper dataset as arrays on disk, so that a call that was cut goes on."""

import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from bvlib.worlds.images import image_hash
from bvmake.datasets.source import Items, save_arrays

CHUNK = 256  # images between two marks of how far a split is written
THREADS = 8  # images decoded at once, at most


def clip_square(image: Image.Image, size: int) -> np.ndarray:
    """An RGB image as CLIP sees it: (size, size, 3) uint8.

    The short side is resized (bicubic), then the square in the middle is taken, by torchvision's
    own code, as in open_clip's evaluation transform.

    >>> clip_square(Image.new("RGB", (40, 30)), 8).shape
    (8, 8, 3)
    """
    from bvlib.core import _torchvision  # noqa: F401  (must come before torchvision itself)
    from torchvision.transforms import functional  # isort: skip

    image = functional.resize(image, size, functional.InterpolationMode.BICUBIC)
    return np.asarray(functional.center_crop(image, size))


def write_split(
    cache: Path,
    part: str,
    items: Items,
    size: int,
    avoid: dict[bytes, str],
    key: str,
) -> list[list[str]]:
    """Write ``part`` of a cache from ``items``, but for images whose hash is in ``avoid``.

    ``avoid`` is {hash: name of its twin}. Gives [[name of an image left out, name of its twin],
    ...]. Goes on from a draft that the same items, size, ``avoid`` and ``key`` left behind: the
    hashes of all images seen so far and the pixels of those kept. The four files of the split
    appear only when it is whole, the images last.
    """
    key = f"{key} {size} {items.key()} {sorted(avoid)!r} {PIL.__version__}"
    stem = f".{part}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    for old in cache.glob(f".{part}-*.part"):
        if not old.name.startswith(stem):
            old.unlink()
    marks, pixels = (cache / f"{stem}_{kind}.part" for kind in ("hashes", "images"))
    final, head, width = cache / f"{part}_images.npy", len(_head(0, size)), 3 * size * size
    told = marks.read_bytes() if marks.is_file() else b""
    hashes = [told[i : i + 16] for i in range(0, len(told) - 15, 16)]  # not half of one
    if len(hashes) < len(items) or pixels.is_file() or not final.is_file():
        end = head + width * sum(mark not in avoid for mark in hashes)
        if not pixels.is_file() or pixels.stat().st_size < end:
            hashes, end = [], head
        marks.touch()
        pixels.touch()
        what = f"{cache.name} {part}"
        bar = tqdm(desc=what, total=len(items), initial=len(hashes), disable=None)
        with marks.open("r+b") as seen, pixels.open("r+b") as kept, bar:
            for file, whole in ((seen, 16 * len(hashes)), (kept, end)):
                file.truncate(whole)
                file.seek(whole)
            for images in _chunks(items, size, len(hashes)):
                new = [image_hash(image) for image in images]
                for image, mark in zip(images, new, strict=True):
                    kept.write(b"" if mark in avoid else image.tobytes())
                kept.flush()
                seen.writelines(new)
                seen.flush()
                hashes += new
                bar.update(len(new))
        rows = np.flatnonzero([mark not in avoid for mark in hashes])
        marked = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 16)
        places = rows if items.rows is None else items.rows[rows].astype(np.int64)
        found = {"labels": items.labels[rows], "hashes": marked[rows], "rows": places}
        for kind, array in found.items():
            save_arrays(np.save, cache / f"{part}_{kind}.npy", array)
        with pixels.open("r+b") as kept:
            kept.write(_head(len(rows), size))
        os.replace(pixels, final)
    return [[items.name(i), avoid[mark]] for i, mark in enumerate(hashes) if mark in avoid]


def _chunks(items: Items, size: int, start: int) -> Iterator[list[np.ndarray]]:
    """The images from ``start`` on as CLIP sees them, CHUNK at a time."""
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for first in range(start, len(items), CHUNK):
            chunk = range(first, min(first + CHUNK, len(items)))
            yield list(pool.map(lambda i: clip_square(items.read(i), size), chunk))


def _head(count: int, size: int) -> bytes:
    """The head of an .npy file of ``count`` images; numpy pads it to one length for every count."""
    about = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(head := io.BytesIO(), about)
    return head.getvalue()
