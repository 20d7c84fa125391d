"""Cases from the field: folders of images, names and words."""

import itertools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from field import call, cli, photos, prepare
from PIL import Image

from bvlib.run import records
from bvlib.worlds import bases, images, tasks

PLAIN = {"cat": 4, "dog": 4}
BLACK, CLEAR = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 4), np.uint8)
NUMBER = itertools.count()


def fresh(content: dict[str, int] = PLAIN) -> Path:
    """Pictures in a folder that was not there."""
    return photos(f"source{next(NUMBER)}", content)


def split(*parts: str) -> dict[str, int]:
    """Two classes in each of these folders."""
    return {f"{part}/{name}": 4 for part in parts for name in PLAIN}


def beside(path: str, pixels: np.ndarray, **how: object) -> Path:
    """Two classes, and one picture more."""
    source = fresh()
    Image.fromarray(pixels).save(source / path, **how)
    return source


def sets() -> None:
    """What is made of a folder of images."""
    anew()
    for name in ("digits", "Digits", "handwritten", "MNIST"):
        prepare("S10", fresh(), f"a set called {name}", name)
    folders()
    pictures()
    words()


def anew() -> None:
    """A set that is made a second time, and the run that read it."""
    prepare("M1", fresh(), "a set")
    given = {"tasks": ["mine"], "adversary": "mine"}
    job = records.jobs(["00"], "smoke", 0, given)[0]
    record = {"key": "of the first set", "parts": records.fingerprint(job), "recipes": []}
    source = fresh({"cat": 4, "owl": 4})
    cli("S3", "data", "prepare", "mine", "--from", source, tried="another under its name")
    cli("M1", "data", "prepare", "mine", "--from", source, "--replace")
    why = "why the run that read the first set has to run"
    for place in ("sets", f"~/{os.path.relpath('sets', Path.home())}"):
        os.environ["BVLIB_DATA"] = place if place[0] == "~" else os.path.abspath(place)
        shown = "~/..." if place[0] == "~" else place
        call("M1", f"{why}, {shown}", lambda: records.why(record, records.fingerprint(job), job))


def folders() -> None:
    """Splits, classes, and what tools leave behind."""
    for parts in (("train", "valid"), ("Train", "Test"), ("training", "testing")):
        prepare("S3", fresh(split(*parts)), f"split folders {', '.join(parts)}")
    official = {f"Final_Training/Images/{n:05d}": 1 for n in range(43)}
    official["Final_Test/Images"] = 2
    prepare("S3", fresh(official), "Final_Training/Images, Final_Test/Images", "gtsrb")
    prepare("S3", fresh({"photo/cat": 4, "sketch/cat": 4}), "domains above classes (PACS)")
    prepare("S3", fresh({str(n): 2 for n in range(42)}), "42 folders for gtsrb's 43", "gtsrb")
    prepare("S3", fresh(split("train", "val", "test")), "a third split")
    prepare("M", fresh({**split("train"), "test": 4}), "unlabelled flat test/")
    for hidden in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        prepare("S1", fresh({**PLAIN, f"cat/{hidden}": 4}), f"cat/{hidden}/*.png (vision#2831)")
    jfif, heic = fresh({**PLAIN, "owl": 4}), fresh({**PLAIN, "owl": 0})
    for path in (jfif / "owl").iterdir():
        path.rename(path.with_suffix(".jfif"))
    (heic / "owl" / "x.HEIC").touch()
    prepare("S2", jfif, "a class all .jfif")
    prepare("S2", heic, "a class all .HEIC (vision#4925)")
    prepare("S2", fresh({**PLAIN, "owl": 0}), "an empty class")
    prepare("S4", fresh({str(n): 5 for n in range(12)}), "numbered folders (vision#714)")
    call("S4", "their order", lambda: images.load("mine").classnames)
    order = sorted(map(str, range(43)))
    gtsrb = images.DATASETS["gtsrb"]
    call("S4", f"Kaggle's GTSRB, folder {order[2]}", lambda: gtsrb.read_names(order)[2])


def pictures() -> None:
    """Files of pictures."""
    sixteen, floats = np.full((8, 8), 2000, np.uint16), np.full((8, 8), 0.5, np.float32)
    prepare("S5", beside("cat/deep.png", sixteen), "a PNG of 16 bits (Pillow#3011)")
    prepare("S5", beside("cat/deep.tif", floats), "a TIFF of floats (Pillow#5991)")
    exif, bright = Image.Exif(), BLACK.copy()
    exif[0x0112], bright[0] = 6, 255
    turned = beside("cat/photo.jpg", bright, exif=exif, quality=100)
    prepare("S6", turned, "a photo with EXIF orientation 6 (yolov5#405)")
    call("S6", "its right column, as it is read", lambda: right_column() > 250)
    prepare("crash", beside("cat/huge.png", np.zeros((14000, 14000), bool)), "14000 × 14000 px")
    prepare("M", beside("cat/clear.png", CLEAR), "a picture all transparent (DIGITS#85)")
    prepare("M", beside("cat/black.png", BLACK), "a picture all black")
    same = fresh()
    (same / "dog" / "same.png").write_bytes((same / "cat" / "0.png").read_bytes())
    prepare("S16", same, "an image under two classes")
    content = {"train/cat": 33, "train/dog": 33, "test/cat": 5, "test/dog": 5}
    prepare("S13", fresh(content), "66 training images")
    call("S13", "as a task with dev: 64", counts)


def right_column() -> int:
    """The grey of the brightest right column of 8 px in the middle of 32."""
    made = images.load("mine")
    both = np.concatenate([made.train_images, made.test_images])[:, 12:20, 12:20, 0]
    return int(both[:, :, -1].min(1).max())


def counts() -> str:
    """How many images the splits have, and what is warned of."""
    told = warned(lambda: tasks.load("mine", {"train": 100, "dev": 64, "test": 100}))
    task = told.pop(0)
    return f"{len(task.train)} train, {len(task.dev)} dev, {len(task.test)} test; {told}"


def warned(function) -> list:
    """What a function gives, then its warnings."""
    found: list = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    logging.getLogger("bvlib").addHandler(handler)
    try:
        return [function(), *found]
    finally:
        logging.getLogger("bvlib").removeHandler(handler)


def words() -> None:
    """Class words and prompts."""
    coded = fresh({"Sample001": 5, "Sample002": 5})
    (coded / "words.yaml").write_text("words: {Sample001: one, Sample002: two}")
    prepare("M", coded, "folder codes and words.yaml")
    call("M", "the words that a model reads", lambda: images.load("mine").classnames)
    prepare("S7", fresh({"hot dog": 4, "hot_dog": 4}), "classes 'hot dog', 'hot_dog'")
    prepare("S7", fresh({"A": 4, "a": 4}), "classes 'A', 'a'")
    base, gtsrb = bases.load("small"), images.DATASETS["gtsrb"]

    def head(names: Sequence[str], prompts: Sequence[str] = ("a {}",)) -> str:
        made, *told = warned(lambda: base.head(names, prompts))
        return f"a head of {len(made)} classes; {told}"

    for names in (("A", "a"), ("कमल", "गुलाब"), ("very " * 40 + "red", "very " * 40 + "blue")):
        shown = ", ".join(name[:20] for name in names)
        call("S7", f"a head of the classes {shown} (CLIP#212)", lambda names=names: head(names))
    all_words = list(gtsrb.words.values())
    call("S7", "GTSRB's words and prompts", lambda: head(all_words, gtsrb.templates))
