"""Reads a folder of images as its reader laid it out: CLASS/*, or train/CLASS/* and test/CLASS/*.

What is left out or decided is said; what could be read in two ways is refused.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from PIL import Image, ImageOps

from bvlib.core.errors import BvError, MissingData
from bvmake.datasets.source import SUFFIXES, class_folders, hidden, open_image

Items = Iterable[tuple[Image.Image, int]]
TRAIN = ("train", "training", "final_training")  # names of split folders, in any case
TEST = ("test", "testing", "final_test", "val", "valid", "validation", "dev", "eval")  # the first


def read(source: Path, say: Callable[[str], None]) -> tuple[list[str], list[Items]]:
    """Class names and one or two splits (train, test): (image, label) pairs in the order of file
    names; names that are numbers in the order of numbers."""
    if not source.is_dir():
        way = "give one that holds train/CLASS/ and test/CLASS/, or CLASS/"
        raise MissingData(f"no folder {source}: {way}")
    tops = _splits(source, say) or [source]
    found = [class_folders(top) for top in tops]
    for top, part in zip(tops, found, strict=True):
        _check_folders(top, part, say)
    if lone := sorted(set(found[0]) ^ set(found[-1])):
        lacks = tops[lone[0] in found[0]]
        mend = f"{lacks.name}/ has none: add it there, or leave it out"
        raise BvError(f"{source}: class {lone[0]!r} is not in both train and test: {mend}")
    if len(found[0]) < 2:
        way = "give two or more folders CLASS/ with images, or train/CLASS/ + test/CLASS/"
        raise BvError(f"{source}: {way}")
    names = sorted(found[0], key=lambda n: (0, int(n), n) if n.isdecimal() else (1, 0, n))
    files = [[(f, i) for i, name in enumerate(names) for f in part[name]] for part in found]
    return names, [_pictures(part, say) for part in files]


def _splits(source: Path, say: Callable[[str], None]) -> list[Path]:
    """The folders of train and test images below ``source``; none where there are not both."""
    there = [path for path in sorted(source.iterdir()) if path.is_dir()]
    train, test = (
        [path for name in names for path in there if path.name.lower() == name]
        for names in (TRAIN, TEST)
    )
    if not train or not test:
        return []
    for path in there:
        if path not in (train[0], test[0]) and not hidden(path, source):
            read = f"{train[0].name}/ and {test[0].name}/ are the two splits"
            say(f"{path.name}/ is left out: {read}")
    return [train[0], test[0]]


def _check_folders(top: Path, found: dict[str, list[Path]], say: Callable[[str], None]) -> None:
    """Say which files and folders are left out. BvError for a class without images, and where the
    folders are no classes but hold such."""
    if behind := sorted(f.name for f in top.iterdir() if f.is_dir() and f.name not in found):
        say(f"folders in {top} that tools leave behind, left out: {', '.join(behind)}")
    beside = (f for f in top.glob("*.*") if not hidden(f, top))
    if alone := sum(f.suffix.lower() in SUFFIXES for f in beside):
        what = f"{alone} images in {top} lie in no class folder"
        if not found:
            mend = "give two or more folders CLASS/; without test/, a fifth of train becomes it"
            raise BvError(f"{what}, so what they show is not told: {mend}")
        say(f"{what}: left out")
    skipped: Counter[str] = Counter()
    for name, files in found.items():
        within, images = [f for f in (top / name).rglob("*") if not hidden(f, top)], set(files)
        links = [f for f in within if f.is_symlink() and f.is_dir()]
        if deeper := [*(f.parent for f in files if f.parent != top / name), *links]:
            what = f"{name!r} has folders in it ({deeper[0].name!r}), so it is no class"
            raise BvError(f"{top}: {what}: give the folder whose folders are the classes")
        others = (f.suffix.lower() or "plain" for f in within if f.is_file() and f not in images)
        others = Counter(others)
        if not files:
            has = f"no image ({_kinds(others)})" if others else "no image"
            raise BvError(f"class {name!r} in {top} has {has}: add some, or remove the folder")
        skipped += others
    if skipped:
        say(f"files in {top} that are no images, left out: {_kinds(skipped)}")


def _kinds(counts: Counter[str]) -> str:
    """Counts of kinds of files in words, the five most frequent ones by name."""
    first = [f"{count} {kind}" for kind, count in counts.most_common(5)]
    return ", ".join([*first, "..."] if len(counts) > 5 else first)


def _pictures(files: Iterable[tuple[Path, int]], say: Callable[[str], None]) -> Iterator:
    """The images of a split with their labels, as `_picture` reads them; what it decides is said at
    the end."""
    decided: Counter[str] = Counter()
    sizes = set()
    for path, label in files:
        image = _picture(path, decided)
        sizes.add(image.size)
        yield image, label
    small, large = (pick(sizes, key=lambda s: s[0] * s[1], default=(0, 0)) for pick in (min, max))
    to = f" to {large[0]} × {large[1]}" * (small != large)
    say(f"sizes as they are: {small[0]} × {small[1]}{to} px")
    for what, count in decided.items():
        say(f"{what}: {count}")


def _picture(path: Path, decided: Counter[str]) -> Image.Image:
    """An image file, turned as its camera says, on white where it is transparent. BvError for more
    than 8 bits a channel, whose range is not told."""
    image = open_image(path, "mend or remove it")
    if image.mode[0] in "IF":
        mend = "convert it to 8 bits a channel first, by the range that it has"
        raise BvError(f"{path}: it is of mode {image.mode}, more than 8 bits a pixel: {mend}")
    with Image.open(path) as again:  # a photo of several frames (MPO) has one that is shown
        if getattr(again, "n_frames", 1) > 1 and again.format != "MPO":
            decided["images of several frames or pages, of which the first is taken"] += 1
    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            decided["images with transparent parts, which become white"] += 1
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
