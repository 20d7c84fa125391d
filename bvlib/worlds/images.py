"""Real image sets as prepared files: one `.npz` a set, read, checked and listed here, made by
bvmake.datasets.prepare.

A prepared file holds plain arrays only: `train_images` and `test_images` uint8 N x H x W x 3 or N
x H x W, `train_labels` and `test_labels` int64, `classnames` unicode. A large set may keep its
train images as JPEG:
`train_jpeg` (all bytes one after the other) and `train_offsets` (image i is bytes
offsets[i]:offsets[i+1]). The files lie in the folder that the environment variable BVLIB_DATA
names, else in the repository's `data/`.
"""

import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from bvlib.core.errors import BvError, MissingData, check_choice, told_as
from bvlib.files.safe import file_sha256, read_yaml
from bvlib.worlds.table import GENERIC_TEMPLATES, DatasetInfo, read_table

__all__ = ["DATASETS", "GENERIC_TEMPLATES", "DatasetInfo", "load", "names", "table"]

SIDE = 32  # pixels; every image that `load` serves is SIDE x SIDE
KEYS = ("train_images", "train_labels", "test_images", "test_labels", "classnames")
JPEG_KEYS = ("train_jpeg", "train_offsets", *KEYS[1:])


@dataclass(frozen=True)
class Arrays:
    """A set in memory: images uint8 N x 32 x 32 x 3 (RGB), labels int64 N, class names in words."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classnames: list[str]
    templates: tuple[str, ...]


DATASETS = read_table(Path(__file__).with_name("images.yaml"))


def data_folder() -> Path:
    """Where prepared files lie: BVLIB_DATA, else `data/` of the repository (else of the working
    folder)."""
    if named := os.environ.get("BVLIB_DATA"):
        return Path(named).expanduser()
    repository = Path(__file__).resolve().parents[2]
    return (repository if (repository / "pyproject.toml").is_file() else Path.cwd()) / "data"


def names(folder: Path | str | None = None) -> list[str]:
    """All names that `load` knows: those of DATASETS, then the reader's own prepared sets."""
    present = (Path(folder) if folder else data_folder()).glob("*.npz")
    return list(dict.fromkeys([*DATASETS, *sorted(path.stem for path in present)]))


def describe(name: str, folder: Path | str | None = None) -> DatasetInfo:
    """The entry for `name`; a reader's own prepared set gets a generic one, with what
    `<name>.yaml` beside it tells (see :func:`read_words`). BvError if it is neither."""
    if name in DATASETS:
        return DATASETS[name]
    check_choice("dataset", name, names(folder))
    told = (Path(folder) if folder else data_folder()) / f"{name}.yaml"
    own = read_words(told) if told.is_file() else {}
    return DatasetInfo(name, "a set prepared by the reader", **own)


def read_words(path: Path) -> dict[str, Any]:
    """What a YAML file tells of a set: ``words`` {class folder: words for it}, ``prompts`` (a list,
    each with one {}), ``licence``; all of them optional. BvError for anything else."""
    with told_as(f"cannot read {path}", mend="it is YAML with words, prompts, licence"):
        told = {**(read_yaml(path) or {})}
    for key in told:
        check_choice(f"key of {path.name}", key, ("words", "prompts", "licence"))
    words, prompts = told.get("words", {}), told.pop("prompts", GENERIC_TEMPLATES)
    if not isinstance(words, dict):
        raise BvError(f"{path}: words are `class folder: words`, got {words!r}")
    texts = [*words, *words.values(), told.get("licence", "-")]
    if strange := [each for each in texts if not isinstance(each, str) or not each.strip()]:
        mend = "put it into quotes where YAML reads a number or yes, no, null"
        raise BvError(f"{path}: words and licence are texts, got {strange[0]!r}: {mend}")
    if not isinstance(prompts, (list, tuple)) or not prompts or not all(map(_is_prompt, prompts)):
        raise BvError(f"{path}: prompts are a list of texts with one {{}} each, got {prompts!r}")
    return {**told, "templates": tuple(prompts)}


def _is_prompt(text: Any) -> bool:
    """A text with one ``{}`` and no other brace?"""
    return isinstance(text, str) and re.fullmatch(r"[^{}]*\{\}[^{}]*", text) is not None


def load(name: str, folder: Path | str | None = None) -> Arrays:
    """Read and check a prepared set: images uint8 N x 32 x 32 x 3, labels int64, class names in
    words.

    Smaller images are padded to 32 x 32, not rescaled; grey is repeated to three channels. Raises
    MissingData when the file is not there, BvError when it is damaged, has other keys, shapes or
    labels than it should, or when a test image is also a train image.
    """
    folder = Path(folder) if folder else data_folder()
    info, path = describe(name, folder), folder / f"{name}.npz"
    if not path.is_file():
        way = f"--torchvision {info.torchvision}" if info.torchvision else "--from FOLDER_OF_IMAGES"
        mend = "or let BVLIB_DATA name the folder that holds it"
        how = f"make it with `bv data prepare {name} {way}`, {mend}"
        raise MissingData(f"no {path.name} in {folder}: {how}")
    raw = _read(path)
    classes, splits = raw["classnames"], []
    if classes.dtype.kind != "U" or classes.ndim != 1 or len(set(classes.tolist())) != classes.size:
        raise refused(path, "classnames are no list of different texts")
    for part in ("train", "test"):
        splits += split_of(raw, part, path, info.background)
    if both := set(map(image_hash, splits[0])) & set(map(image_hash, splits[2])):
        raise refused(path, f"{len(both)} test images are also train images")
    return Arrays(*splits, info.read_names(classes.tolist()), info.templates)


def split_of(
    raw: dict[str, np.ndarray], part: str, path: Path, background: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 N x 32 x 32 x 3 and labels int64 of one split of a file's arrays, checked."""
    images, labels = raw.get(f"{part}_images"), raw[f"{part}_labels"]
    if images is None:
        images = _decode(raw["train_jpeg"], raw["train_offsets"], path)
    wrong = unfit(images, labels) or outside(labels, len(raw["classnames"]))
    if not wrong and max(images.shape[1:3]) > SIDE:
        high, wide = images.shape[1:3]
        wrong = f"images are {high} x {wide} pixels, more than {SIDE} x {SIDE}"
    if wrong:
        raise refused(path, f"{part} {wrong}")
    return _to_rgb(images, background), labels.astype(np.int64)


def table(folder: Path | str | None = None) -> "pandas.DataFrame":  # noqa: F821
    """What `bv data` lists: a row a set, with the licence, the counts, a short hash and whether it
    is here.

    Counts and hash are those of the file where there is one, else those of the reference
    preparation. `present` is "reference", "own preparation", "unreadable" or "no".
    """
    import pandas

    folder = Path(folder) if folder else data_folder()
    rows, counted = [], ("train", "test", "classes")
    for name in names(folder):
        info, path = describe(name, folder), folder / f"{name}.npz"
        row = {key: getattr(info, key) for key in ("name", "what", "licence", *counted, "sha256")}
        row |= {"present": "no", "path": str(path)}
        if path.is_file():
            row["sha256"] = file_sha256(path)
            row["present"] = "reference" if row["sha256"] == info.sha256 else "own preparation"
            try:
                raw = _read(path, only=("train_labels", "test_labels", "classnames"))
                row |= zip(counted, map(len, raw.values()), strict=True)
            except BvError:
                row["present"] = "unreadable"
        rows.append(row | {"sha256": row["sha256"][:12]})
    return pandas.DataFrame(rows)


def refused(path: Path, what: str) -> BvError:
    """The error for a prepared file that is not what it should be. It is returned, not raised."""
    again = f"bv data prepare {path.stem} --replace"
    return BvError(f"{path}: {what}; prepare it again with `{again} ...`")


def _read(path: Path, only: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a prepared file, or one line about what is wrong with it."""
    with opened(path) as archive:
        keys = set(archive.files)
        if missing := min((sorted(set(need) - keys) for need in (KEYS, JPEG_KEYS)), key=len):
            raise refused(path, f"it lacks {', '.join(missing)}: not a prepared dataset")
        if foreign := sorted(keys - set(KEYS) - set(JPEG_KEYS)):
            raise refused(path, f"it holds {', '.join(foreign)}: not a prepared dataset")
        return {key: archive[key] for key in (only or archive.files)}


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An npz of plain arrays; what is wrong with it becomes one line."""
    kinds = OSError, ValueError, EOFError, AttributeError, TypeError, BadZipFile, zlib.error
    none = refused(path, "it is truncated or no npz of plain arrays")
    with told_as(none, *kinds), np.load(path, allow_pickle=False) as archive:
        yield archive


def _decode(data: np.ndarray, offsets: np.ndarray, path: Path) -> np.ndarray:
    """JPEG bytes one after the other -> uint8 N x H x W x 3."""
    bounds = offsets.tolist() if offsets.ndim == 1 and offsets.dtype.kind in "iu" else []
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != len(data) or sorted(bounds) != bounds:
        raise refused(path, "train_offsets do not fit train_jpeg")
    images = []
    for i, (start, end) in enumerate(pairwise(bounds)):
        with told_as(refused(path, f"train image {i} is no JPEG"), OSError, ValueError):
            images.append(np.asarray(Image.open(io.BytesIO(data[start:end])).convert("RGB")))
    with told_as(refused(path, "its JPEG images are not all of one size"), ValueError):
        return np.stack(images)


def _to_rgb(images: np.ndarray, background: int) -> np.ndarray:
    """uint8 N x H x W (x 3), H and W <= 32 -> N x 32 x 32 x 3, the image in the middle."""
    room = [SIDE - side for side in images.shape[1:3]]
    pad = [(0, 0), *((r // 2, r - r // 2) for r in room), *[(0, 0)] * (images.ndim - 3)]
    images = np.pad(images, pad, constant_values=background) if any(room) else images
    return images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=3)


def image_hash(image: np.ndarray) -> bytes:
    """16 bytes that tell images apart: equal pixels, equal hash."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def unfit(images: np.ndarray, labels: np.ndarray) -> str:
    """Why these are no images (N, H, W) or (N, H, W, 3) uint8 with labels (N,), in words; "" when
    they are."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
        kind = f"{images.dtype} {images.shape}"
        return f"images are {kind}, not uint8 N x H x W or N x H x W x 3"
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or not len(labels):
        kind = f"{labels.dtype} {labels.shape}"
        return f"labels are {kind}: {len(images)} images and {len(labels)} labels"
    return ""


def outside(labels: np.ndarray, classes: int) -> str:
    """Which labels (N,) are no class, in words; "" when all are."""
    if not len(labels) or (labels.min() >= 0 and labels.max() < classes):
        return ""
    return f"labels reach from {labels.min()} to {labels.max()}, outside 0..{classes - 1}"
