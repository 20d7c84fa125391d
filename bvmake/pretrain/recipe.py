"""How a base is trained, as a checked value; the recipes that we ship are in recipes.yaml."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bvlib.core.errors import BvError, check_choice
from bvlib.files.safe import read_yaml
from bvlib.worlds import bases
from bvlib.worlds.table import SETS

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Recipe:
    """How to train a base from nothing, or from another one (``start``: a shipped base, or the path
    of a .safetensors with its card) with a tower of the same size.

    ``model``: width, layers, patch and width of a head of the image tower, and the width of the
    text tower. ``sets``: {set of pictures: its share of each batch}; scenes of the toy world fill
    the rest, drawn before the training starts (``pool`` single ones, as many crowded ones, half as
    many stickers). ``images``: how many are seen in all.

    ``warmup`` and ``late`` are shares of the training: the second stage, which has crowded scenes
    and stickers, is the last ``late`` of it. There ``stickers`` of the images carry a sticker,
    which is all that the caption names with probability ``alone``. ``erased`` of the images lose a
    rectangle and keep their caption. Half of the photos are mixed in pairs (CutMix, Mixup) until
    the share ``mixed``. Photos are cropped to at least ``crop`` of their area. ``naming`` weighs
    the loss that names what is in the picture.
    """

    model: dict[str, int]
    images: int
    batch: int
    lr: float
    sets: dict[str, float] = field(default_factory=dict)
    pool: int = 80000
    weight_decay: float = 0.1
    warmup: float = 0.03
    late: float = 0.6
    stickers: float = 0.35
    alone: float = 0.8
    erased: float = 0.2
    mixed: float = 0.85
    crop: float = 0.35
    naming: float = 1.0
    start: str | None = None

    def __post_init__(self) -> None:
        for name in self.sets:
            check_choice("set of pictures", name, SETS)
        if sum(self.sets.values()) > 0.95:
            raise BvError("the shares of the sets leave no room for scenes: at most 0.95 in all")
        if self.stickers + self.erased > 1 - 0.5 * self.photos:
            raise BvError("too many stickers and erased rectangles: lower stickers or erased")

    @property
    def steps(self) -> int:
        """Steps of the optimiser."""
        return max(1, self.images // self.batch)

    @property
    def photos(self) -> float:
        """The share of photos in a batch."""
        return sum(s for name, s in self.sets.items() if SETS[name]["kind"] == "photo")

    @property
    def open(self) -> bool:
        """Whether anyone may pass on all that the base is trained on."""
        before = self.start is None or bases.load(self.start).card.get("licence") == "MIT"
        return before and all(SETS[name].get("open") for name in self.sets)

    @property
    def config(self) -> dict[str, Any]:
        """The model as open_clip configures it."""
        m, text = self.model, bases.TINY["text_cfg"]
        vision = {"image_size": 32, "patch_size": m["patch"], "layers": m["layers"]}
        vision |= {"width": m["width"], "head_width": m["head"]}
        text = {**text, "width": m["text_width"]}
        return {"embed_dim": m["width"], "vision_cfg": vision, "text_cfg": text}

    @property
    def data(self) -> str:
        """What it is trained on, with licences, in words."""
        named = [f"{name} ({SETS[name]['licence']})" for name in self.sets]
        use = "anyone may pass all of it on" if self.open else "research use only"
        parts = ["scenes of the toy world (bvlib.worlds.toy)", *named]
        if self.start:
            parts.insert(0, f"what the base {Path(self.start).stem} saw, from which it starts")
        return f"{'; '.join(parts)}. At 32 px; none of the tasks' own pictures; {use}."


RECIPES = {name: Recipe(**fields) for name, fields in read_yaml(HERE / "recipes.yaml").items()}
