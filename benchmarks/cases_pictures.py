"""Cases from the field: folders of images, names and words."""

import numpy as np
from field import call, photos, prepare
from PIL import Image

from bvlib.worlds import bases, images


def sets() -> None:
    """Folders of images, and names."""
    prepare("S10", photos("a", {"cat": 4, "dog": 4}), "a set called digits", "digits")
    for i, (train, test) in enumerate(
        [("train", "valid"), ("Train", "Test"), ("training", "testing")]
    ):
        content = {f"{part}/{c}": 4 for part in (train, test) for c in ("cat", "dog")}
        prepare("S3", photos(f"b{i}", content), f"split folders {train}, {test}")
    prepare("S3", photos("c", {"photo/cat": 4, "sketch/cat": 4}), "domains above classes (PACS)")
    content = {f"{part}/{c}": 4 for part in ("train", "val", "test") for c in ("cat", "dog")}
    prepare("S3", photos("d", content), "a third split")
    deep = photos("e", {"cat": 4, "dog": 4})
    Image.fromarray(np.full((8, 8), 2000, np.uint16)).save(deep / "cat" / "deep.png")
    prepare("S5", deep, "a picture of 16 bits (Pillow#3011)")
    prepare(
        "S1",
        photos("f", {"cat": 10, "dog": 10, "cat/.ipynb_checkpoints": 10}),
        "hidden folders (vision#2831)",
    )
    heic = photos("g", {"cat": 4, "dog": 4, "owl": 0})
    (heic / "owl" / "x.heic").touch()
    prepare("S2", heic, "a class all .heic (vision#4925)")
    same = photos("h", {"cat": 6, "dog": 6})
    (same / "dog" / "same.png").write_bytes((same / "cat" / "0.png").read_bytes())
    prepare("S16", same, "an image under two classes")
    prepare("S4", photos("i", {str(n): 5 for n in range(12)}), "numbered folders (vision#714)")
    gtsrb = images.DATASETS["gtsrb"]
    order = sorted(map(str, range(43)))
    call(
        "S4", "GTSRB's folders in the order of text: the third", lambda: gtsrb.read_names(order)[2]
    )
    huge = photos("j", {"cat": 4, "dog": 4})
    Image.new("L", (14000, 14000)).save(huge / "cat" / "huge.png")
    prepare("crash", huge, "a picture of 14000 × 14000")
    head = bases.load("small").head
    for names in (("hot dog", "hot_dog"), ("A", "a")):
        call("S7", f"classes {names} (CLIP#212)", lambda names=names: head(names, ["a {}"]).shape)
