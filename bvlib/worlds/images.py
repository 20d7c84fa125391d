"""Real image sets as prepared files: one `.npz` a set, read, checked and listed here, made by
bvlib.worlds.prepare.

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
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bvlib.core.errors import BvError, MissingData, unknown
from bvlib.files.safe import file_sha256

SIDE = 32  # pixels; every image that `load` serves is SIDE x SIDE
KEYS = ("train_images", "train_labels", "test_images", "test_labels", "classnames")
JPEG_KEYS = ("train_jpeg", "train_offsets", *KEYS[1:])
GENERIC_TEMPLATES = ("a photo of a {}.", "a picture of a {}.")  # for a set of the reader's own
BASE_ONLY = ("omniglot", "tinyimagenet")  # in the training of the real32 base, so not its tasks


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a set before it is read.

    `train`, `test`, `classes`, `sha256` are those of the reference preparation; another one is
    fine. `words` maps a class name in the file to words for a text tower, in label order ({}: the
    name itself). `background` is the grey level put around images smaller than 32 x 32 pixels.
    """

    name: str
    what: str
    licence: str = "your own"
    citation: str = ""
    train: int = 0
    test: int = 0
    classes: int = 0
    templates: tuple[str, ...] = GENERIC_TEMPLATES
    words: dict[str, str] = field(default_factory=dict)
    sha256: str = ""
    torchvision: str = ""
    background: int = 0

    def read_names(self, names: Sequence[str]) -> list[str]:
        """Class names of a file -> words that a CLIP text tower can read, in the same order.

        Found by name, else by position when the names number themselves (0, 1, ... or 00000,
        00001, ...).

        >>> DATASETS["fashion_mnist"].read_names(["T-shirt/top", "Trouser"])
        ['t-shirt', 'pair of trousers']
        """
        words = {loose(name): text for name, text in self.words.items()}
        numbered = [re.match(r"0*(\d+)(?!\w)", name) for name in names]
        if len(names) == len(words) and all(m and int(m[1]) == i for i, m in enumerate(numbered)):
            return list(words.values())
        return [words.get(loose(name)) or _tidy(name) for name in names]


@dataclass(frozen=True)
class Arrays:
    """A set in memory: images uint8 N x 32 x 32 x 3 (RGB), labels int64 N, class names in words."""

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classnames: list[str]
    templates: tuple[str, ...]
    path: Path


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_DIGITS = dict(
    zip("0123456789", "zero one two three four five six seven eight nine".split(), strict=True)
)
_LIMIT, _WARN, _BLUE = (
    "red and white circle",
    "red and white triangle",
    "blue circle with white arrow",
)
_SIGNS = {
    **{f"speed limit {v} km/h": f"{_LIMIT} speed limit {v}" for v in (20, 30, 50, 60, 70, 80)},
    "end of speed limit 80 km/h": "white circle with grey bar, end of speed limit 80",
    **{f"speed limit {v} km/h": f"{_LIMIT} speed limit {v}" for v in (100, 120)},
    "no passing": f"{_LIMIT} with red car and black car, no passing",
    "no passing for trucks": f"{_LIMIT} with red truck and black car, no passing for trucks",
    "right of way at next intersection": f"{_WARN} with crossing, right of way at the next "
    "intersection",
    "priority road": "yellow and white diamond, priority road",
    "yield": "upside down red and white triangle, yield",
    "stop": "red octagon with the word stop",
    "no vehicles": "empty red and white circle, no vehicles",
    "no trucks": f"{_LIMIT} with truck, no trucks",
    "no entry": "red circle with white bar, no entry",
    "general caution": f"{_WARN} with exclamation mark, caution",
    "dangerous curve left": f"{_WARN} with curve to the left",
    "dangerous curve right": f"{_WARN} with curve to the right",
    "double curve": f"{_WARN} with double curve",
    "bumpy road": f"{_WARN} with bumps, bumpy road",
    "slippery road": f"{_WARN} with skidding car, slippery road",
    "road narrows on the right": f"{_WARN} with road narrowing on the right",
    "road work": f"{_WARN} with digging person, road work",
    "traffic signals": f"{_WARN} with traffic light",
    "pedestrians": f"{_WARN} with walking person, pedestrians",
    "children crossing": f"{_WARN} with two children, children crossing",
    "bicycles crossing": f"{_WARN} with bicycle, bicycles crossing",
    "beware of ice or snow": f"{_WARN} with snowflake, ice or snow",
    "wild animals crossing": f"{_WARN} with deer, wild animals",
    "end of all limits": "white circle with grey bar, end of all limits",
    "turn right ahead": f"{_BLUE} turning right",
    "turn left ahead": f"{_BLUE} turning left",
    "ahead only": f"{_BLUE} pointing straight up, ahead only",
    "go straight or right": f"{_BLUE} straight or right",
    "go straight or left": f"{_BLUE} straight or left",
    "keep right": f"{_BLUE} pointing down right, keep right",
    "keep left": f"{_BLUE} pointing down left, keep left",
    "roundabout mandatory": "blue circle with round white arrows, roundabout",
    "end of no passing": "white circle with grey bar and two cars, end of no passing",
    "end of no passing for trucks": "white circle with grey bar and truck, end of no passing for "
    "trucks",
}
_INFOS = (
    DatasetInfo(
        "cifar10",
        "small photos of ten kinds of things",
        "no formal licence; research use with citation",
        "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, Univ. of Toronto, "
        "2009",
        5000,
        2000,
        10,
        ("a photo of a {}.", "a blurry photo of a {}.", "a small photo of the {}."),
        _same(
            "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
        ),
        "d19c84e4332b9ff7c1c4c7c99745d9d0a03f5834ba2ff1986316c5d312b7600e",
        "CIFAR10",
    ),
    DatasetInfo(
        "gtsrb",
        "German traffic signs",
        "no formal licence; research use with citation",
        "J. Stallkamp, M. Schlipsing, J. Salmen, C. Igel, Man vs. computer, Neural Networks 32, "
        "2012",
        4988,
        1978,
        43,
        (
            "a close up photo of a {} traffic sign.",
            "a photo of a {} traffic sign.",
            "a traffic sign: {}.",
        ),
        _SIGNS,
        "0cb4a9757006f9d65ea8d83b61697ee60ba4817a043b82dc4b8cf655c2bb2470",
        "GTSRB",
    ),
    DatasetInfo(
        "mnist",
        "handwritten digits, grey",
        "commonly given as CC BY-SA 3.0",
        "Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-based learning applied to document "
        "recognition, Proc. IEEE 86(11), 1998",
        5000,
        2000,
        10,
        ("a photo of the number {}.", "a handwritten digit {}.", "the digit {}."),
        _DIGITS,
        "95a0d5e4116f5aa742e5f5eb5e130bd3f7b715b9e7434aceab2bdbd33dbc0011",
        "MNIST",
    ),
    DatasetInfo(
        "fashion_mnist",
        "articles of clothing, grey",
        "MIT (Zalando SE)",
        "H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, arXiv 1708.07747, 2017",
        5000,
        2000,
        10,
        ("a photo of a {}.", "a grey photo of a {}.", "a {}, an article of clothing."),
        {
            "t-shirt/top": "t-shirt",
            "trouser": "pair of trousers",
            **_same("pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
        },
        "7ce7d0deb680176b29e44764753076e85e3f6cbba0dfe09a885a5a09eafb7c1f",
        "FashionMNIST",
    ),
    DatasetInfo(
        "dtd10",
        "Describable Textures, the first ten of 47 classes",
        "research purposes only; images' copyright with their owners",
        "M. Cimpoi, S. Maji, I. Kokkinos, S. Mohamed, A. Vedaldi, Describing Textures in the "
        "Wild, CVPR 2014",
        3200,
        1600,
        10,
        ("a photo of a {} texture.", "a photo of a {} pattern.", "a {} surface."),
        _same(
            "banded",
            "blotchy",
            "braided",
            "bubbly",
            "bumpy",
            "chequered",
            "cobwebbed",
            "cracked",
            "crosshatched",
            "crystalline",
        ),
        "e114b82d298b0e1e79fb97c63246f08280413975b26fb3307f4e3a418209b20f",
        "DTD",
    ),
    DatasetInfo(
        "ucmerced",
        "land use seen from above (UC Merced)",
        "images public domain (USGS); set given for research with citation",
        "Y. Yang, S. Newsam, Bag-of-visual-words and spatial extensions for land-use "
        "classification, "
        "ACM SIGSPATIAL 2010",
        1260,
        840,
        21,
        ("satellite imagery of {}.", "an aerial photo of {}.", "a satellite photo of {}."),
        {
            "agricultural": "a field",
            "airplane": "an airplane",
            "baseball diamond": "a baseball diamond",
            "beach": "a beach",
            "buildings": "buildings",
            "chaparral": "chaparral shrubs",
            "dense residential": "a dense residential area",
            "forest": "a forest",
            "freeway": "a freeway",
            "golf course": "a golf course",
            "harbor": "a harbor with boats",
            "intersection": "a road intersection",
            "medium residential": "a medium residential area",
            "mobile home park": "a mobile home park",
            "overpass": "an overpass",
            "parking lot": "a parking lot with cars",
            "river": "a river",
            "runway": "a runway",
            "sparse residential": "a sparse residential area",
            "storage tanks": "storage tanks",
            "tennis court": "a tennis court",
        },
        "65b71bc40fcd698dc9f4394d82417bad39c7564163e04d4783ec71a188448077",
    ),
    DatasetInfo(
        "omniglot",
        "handwritten characters of eight alphabets, grey",
        "MIT",
        "B. M. Lake, R. Salakhutdinov, J. B. Tenenbaum, Human-level concept learning through "
        "probabilistic "
        "program induction, Science 350, 2015",
        3388,
        1452,
        242,
        ("a photo of a {}.", "a handwritten {}.", "a {} in black ink."),
        {},
        "26f31cf55354e4c56134c66c5d53f140a9f5fe33ea318d9e9f3c6c6e0a0436d4",
        "Omniglot",
        255,
    ),
    DatasetInfo(
        "tinyimagenet",
        "small photos of 200 kinds of things, for training a base",
        "ImageNet terms: non-commercial research and education; images' copyright with their "
        "owners",
        "Y. Le, X. Yang, Tiny ImageNet Visual Recognition Challenge, 2015; "
        "J. Deng et al., ImageNet, CVPR 2009",
        99978,
        1998,
        200,
        ("a photo of a {}.", "a blurry photo of a {}.", "a small photo of the {}."),
        {},
        "0d7f43a9cef34ddb5ebf87b708e6e585eaa9d949157f1706b25153251a9d53c4",
    ),
)
DATASETS: dict[str, DatasetInfo] = {info.name: info for info in _INFOS}


def data_folder() -> Path:
    """Where prepared files lie: BVLIB_DATA, else `data/` of the repository (else of the working
    folder)."""
    if named := os.environ.get("BVLIB_DATA"):
        return Path(named).expanduser()
    repository = Path(__file__).resolve().parents[2]
    return (repository if (repository / "pyproject.toml").is_file() else Path.cwd()) / "data"


def names(folder: Path | str | None = None) -> list[str]:
    """All names that `load` knows: those of DATASETS, then the reader's own prepared sets in the
    folder."""
    return list(dict.fromkeys([*DATASETS, *_present(Path(folder) if folder else data_folder())]))


def describe(name: str, folder: Path | str | None = None) -> DatasetInfo:
    """The entry for `name`; a reader's own prepared set gets a generic one. BvError if it is
    neither."""
    if name in DATASETS:
        return DATASETS[name]
    if name not in names(folder):
        raise unknown("dataset", name, names(folder))
    return DatasetInfo(name, "a set prepared by the reader")


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
        raise MissingData(
            f"no {path.name} in {folder}: make it with `bv data prepare {name} {way}`, "
            "or let BVLIB_DATA name the folder that holds it"
        )
    raw = _read(path)
    classes, splits = raw["classnames"], []
    if classes.dtype.kind != "U" or classes.ndim != 1 or len(set(classes.tolist())) != classes.size:
        raise BvError(f"{path}: classnames are no list of different texts; {_again(path)}")
    for part in ("train", "test"):
        images, labels = raw.get(f"{part}_images"), raw[f"{part}_labels"]
        if images is None:
            images = _decode(raw["train_jpeg"], raw["train_offsets"], path)
        _check(images, labels, len(classes), part, path)
        splits += [_to_rgb(images, info.background), labels.astype(np.int64)]
    if both := set(map(image_hash, splits[0])) & set(map(image_hash, splits[2])):
        raise BvError(f"{path}: {len(both)} test images are also train images; {_again(path)}")
    return Arrays(name, *splits, info.read_names(classes.tolist()), info.templates, path)


def table(folder: Path | str | None = None) -> "pandas.DataFrame":  # noqa: F821
    """What `bv data` lists: a row a set, with the licence, the counts, a short hash and whether it
    is here.

    Counts and hash are those of the file where there is one, else those of the reference
    preparation. `present` is "reference", "own preparation", "unreadable" or "no".
    """
    import pandas

    folder = Path(folder) if folder else data_folder()
    rows = []
    for name in names(folder):
        info, path = describe(name, folder), folder / f"{name}.npz"
        counts, digest, present = (info.train, info.test, info.classes), info.sha256, "no"
        if path.is_file():
            digest = file_sha256(path)
            present = "reference" if digest == info.sha256 else "own preparation"
            try:
                raw = _read(path, only=("train_labels", "test_labels", "classnames"))
                counts = tuple(len(array) for array in raw.values())
            except BvError:
                present = "unreadable"
        rows.append((name, info.what, info.licence, *counts, digest[:12], present, str(path)))
    columns = ["name", "what", "licence", "train", "test", "classes", "sha256", "present", "path"]
    return pandas.DataFrame(rows, columns=columns)


def _tidy(name: str) -> str:
    """A folder's name -> words: 'Early_Aramaic character07' -> 'Early Aramaic letter 7'."""
    text = " ".join(re.sub(r"[_()]", " ", name).split())
    match = re.fullmatch(r"(.+?)[ /]+character0*(\d+)", text)
    return f"{match[1]} letter {match[2]}" if match else text


def loose(name: str) -> str:
    """A class name without case, spaces and signs, for comparing."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def image_hash(image: np.ndarray) -> bytes:
    """16 bytes that tell images apart: equal pixels, equal hash."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _present(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.npz"))


def _again(path: Path) -> str:
    return f"prepare it again with `bv data prepare {path.stem} ...`"


def _read(path: Path, only: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a prepared file, or one line about what is wrong with it."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = set(archive.files)
            if missing := min((sorted(set(need) - keys) for need in (KEYS, JPEG_KEYS)), key=len):
                raise BvError(
                    f"{path} lacks {', '.join(missing)}: not a prepared dataset; {_again(path)}"
                )
            if foreign := sorted(keys - set(KEYS) - set(JPEG_KEYS)):
                raise BvError(
                    f"{path} holds {', '.join(foreign)}: not a prepared dataset; {_again(path)}"
                )
            return {key: archive[key] for key in (only or archive.files)}
    except (
        OSError,
        ValueError,
        EOFError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ):
        raise BvError(f"{path} is truncated or no npz of plain arrays; {_again(path)}") from None


def _decode(data: np.ndarray, offsets: np.ndarray, path: Path) -> np.ndarray:
    """JPEG bytes one after the other -> uint8 N x H x W x 3."""
    from PIL import Image

    bounds = offsets.tolist() if offsets.ndim == 1 and offsets.dtype.kind in "iu" else []
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != len(data) or sorted(bounds) != bounds:
        raise BvError(f"{path}: train_offsets do not fit train_jpeg; {_again(path)}")
    images = np.empty((0,), np.uint8)
    for i, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        try:
            image = np.asarray(Image.open(io.BytesIO(data[start:end])).convert("RGB"))
            if i == 0:
                images = np.empty((len(bounds) - 1, *image.shape), np.uint8)
            images[i] = image
        except (OSError, ValueError):
            raise BvError(
                f"{path}: train image {i} is no JPEG of the others' size; {_again(path)}"
            ) from None
    return images


def _check(images: np.ndarray, labels: np.ndarray, classes: int, part: str, path: Path) -> None:
    def refuse(what: str) -> None:
        raise BvError(f"{path}: {part} {what}; {_again(path)}")

    if (
        images.dtype != np.uint8
        or images.ndim not in (3, 4)
        or (images.ndim == 4 and images.shape[3] != 3)
    ):
        refuse(f"images are {images.dtype} {images.shape}, not uint8 N x H x W or N x H x W x 3")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1] or not len(labels):
        refuse(f"labels are {labels.dtype} {labels.shape} for {len(images)} images")
    if labels.min() < 0 or labels.max() >= classes:
        refuse(f"labels reach from {labels.min()} to {labels.max()}, outside 0..{classes - 1}")
    if max(images.shape[1:3]) > SIDE:
        refuse(
            f"images are {images.shape[1]} x {images.shape[2]} pixels, more than {SIDE} x {SIDE}"
        )


def _to_rgb(images: np.ndarray, background: int) -> np.ndarray:
    """uint8 N x H x W (x 3), H and W <= 32 -> N x 32 x 32 x 3, the image in the middle."""
    room = [SIDE - side for side in images.shape[1:3]]
    pad = [(0, 0), *((r // 2, r - r // 2) for r in room), *[(0, 0)] * (images.ndim - 3)]
    images = np.pad(images, pad, constant_values=background) if any(room) else images
    return images if images.ndim == 4 else np.repeat(images[..., None], 3, axis=3)
