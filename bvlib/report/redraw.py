"""Figures drawn again from the tables beside them, without a model (`bv draw`)."""

import re
from importlib import import_module
from pathlib import Path

from bvlib.core.errors import BvError
from bvlib.files.safe import read_json_if
from bvlib.study.figures import picture_of

# What a card may name as the function that draws its figure.
DRAWINGS = re.compile(
    r"(study\.figures(_\w+)?|report\.overview)\.[a-z]\w*|bvmake\.admission\.page\.draw"
)


def redraw(card: Path) -> Path | None:
    """Draw the figure of a card that :func:`bvlib.study.figures.save` wrote; its path, or None for
    one that shows images, or whose card is of before cards said how it is drawn. BvError for a card
    that names no drawing of bvlib."""
    drawn = (read_json_if(card) or {}).get("drawn")
    if drawn is None:
        return None
    if not DRAWINGS.fullmatch(drawn["by"]):
        raise BvError(f"{card} is drawn by {drawn['by']!r}, which draws no figure of bvlib")
    module, _, name = drawn["by"].rpartition(".")
    module = module if module.startswith("bvmake.") else f"bvlib.{module}"
    draw = getattr(import_module(module), name)
    return picture_of(card.with_suffix(".csv"), draw, drawn["given"])
