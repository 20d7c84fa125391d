"""What the toy world can show, and the words for it; the lists are in toy.yaml."""

from pathlib import Path

import numpy as np

from bvlib.files.safe import read_yaml
from bvlib.worlds import glyphs

TABLE = read_yaml(Path(__file__).with_name("toy.yaml"))
COLOUR_NAMES = list(TABLE["colours"])
RGB = np.array(list(TABLE["colours"].values()), np.float32) / 255
SHAPES, TEXTURES, LETTERS, SIGNS = (TABLE[k] for k in ("shapes", "textures", "letters", "signs"))
NUMBER_WORDS = TABLE["digits"]
RUNES = [glyphs.rune_name(i) for i in range(150)]
NUMBERS = [str(n) for n in range(10, 100)]
# Kinds of thing and the class names of each: what the text tower has to tell apart (more than 300
# names).
KINDS = {
    "shapes": SHAPES,
    "digits": NUMBER_WORDS,
    "letters": list(LETTERS.lower()),
    "textures": TEXTURES,
    "signs": list(SIGNS),
    "colours": COLOUR_NAMES,
    "runes": RUNES,
    "numbers": NUMBERS,
}
PROMPTS = TABLE["prompts"]
TASKS = tuple(TABLE["looks"])
NAMES = [(kind, name) for kind, names in KINDS.items() for name in names]
NAME_INDEX = {pair: i for i, pair in enumerate(NAMES)}


def phrase(kind: str, name: str, colour: str | None = None) -> str:
    """Words for one object: ``phrase("digits", "seven", "red")`` is "a red digit seven"."""
    if kind == "colours":
        return f"something {name}"
    noun = TABLE["nouns"][kind].format(name)
    if colour:
        noun = f"{colour} {noun}"
    elif kind in ("digits", "letters", "runes", "numbers"):
        return f"the {noun}"
    return f"an {noun}" if noun[0] in "aeio" else f"a {noun}"
