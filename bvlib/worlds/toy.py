"""The toy world: procedural 32 x 32 images with captions, the embedded stand-in for the papers'
data.

Two products come out of the same painter:

- :func:`scenes`: single objects, then crowded scenes, with captions; the base is trained on these.
- :func:`task_arrays`: six classification tasks of different kinds (shapes, digits, letters,
  textures, signs, colours). Each has a look of its own, and train, dev and test hold out
  generative factors:
  fonts (digits, letters), pairs of colours (all), pattern frequencies (textures), tilt (signs,
  shapes).

Everything is numpy arithmetic from explicit seeds; images are uint8, N x 32 x 32 x 3.
"""

import numpy as np

from bvlib.core.errors import check_choice
from bvlib.core.rng import numpy_rng
from bvlib.worlds import painter
from bvlib.worlds.painter import Things
from bvlib.worlds.vocabulary import (
    COLOUR_NAMES,
    KINDS,
    NAME_INDEX,
    NAMES,
    NUMBER_WORDS,
    PROMPTS,
    RGB,
    TABLE,
    TASKS,
    phrase,
)

__all__ = ["KINDS", "NAMES", "NUMBER_WORDS", "PROMPTS", "TASKS"]
__all__ += ["phrase", "scenes", "stickers", "task_arrays"]

# the tasks are seen through a soft lens, this share of a 3 px box blur: the base's scenes are sharp
LENS = 0.6


# Colours and classes


def _readable() -> dict[str, np.ndarray]:
    """{split: which pairs (foreground, background) of colours it may show}: pairs of different
    brightness, held out by split; the base sees them all."""
    bright = RGB @ np.array([0.3, 0.59, 0.11], np.float32)
    readable = np.abs(bright[:, None] - bright[None]) > 0.15
    fore, back = np.indices(readable.shape)
    code = (6 * fore + 9 * back) % 10  # every colour has a readable partner in every split
    parts = {"base": code >= 0, "train": code < 6, "dev": code == 6, "test": code > 6}
    return {split: readable & part for split, part in parts.items()}


READABLE = _readable()


def _colours(rng, n, split: str, fore=None) -> tuple[np.ndarray, np.ndarray]:
    """Foreground and background colour indices, distinct and readable, from the split's pairs."""
    count, ok = len(COLOUR_NAMES), READABLE[split]
    f = rng.integers(0, count, n) if fore is None else fore
    best = (rng.random((n, count)) * ok[f]).argmax(1)
    lost = ~ok[f, best]
    if lost.any() and fore is None:
        f[lost], best[lost] = _colours(rng, int(lost.sum()), split)
    return f, best


def _set_apart(rng, colours: np.ndarray, others: np.ndarray) -> None:
    """Change the colours that equal their entry of ``others`` to any different one, in place."""
    same, count = colours == others, len(COLOUR_NAMES)
    colours[same] = (colours[same] + 1 + rng.integers(0, count - 1, same.sum())) % count


def _classes(rng, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Any class of each kind: its index in the kind, and its name."""
    index = np.array([rng.integers(len(KINDS[k])) for k in kind], int)
    return index, np.array([KINDS[k][i] for k, i in zip(kind, index)], dtype=object)


# What the base is trained on


def scenes(
    n: int, rng: np.random.Generator, crowded: bool = False
) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    """Captioned scenes for training a base.

    Single scenes hold one object near the middle; crowded ones one to four, most of them small,
    anywhere (corners too). Returns images (n, 32, 32, 3) uint8, captions, names (n, 4) as indices
    into
    :data:`NAMES` (−1 where there are fewer objects) and colours (n, 4) likewise into
    :data:`COLOUR_NAMES`.
    """
    kinds, weights = np.array(list(KINDS)), list(TABLE["in_scenes"].values())
    f, b = _colours(rng, n, "base")
    canvas = painter.background(rng, b, 0.12)
    count = np.minimum(rng.integers(1, 5, n), rng.integers(1, 5, n)) if crowded else np.ones(n, int)
    names, colours = -np.ones((n, 4), int), -np.ones((n, 4), int)
    for k in range(count.max(initial=0)):
        on = np.flatnonzero(count > k)
        m = len(on)
        kind = rng.choice(kinds, m, p=weights)
        if crowded:
            kind[(kind == "textures") & (k > 0)] = "shapes"
        fk = f[on] if k == 0 else rng.integers(0, len(COLOUR_NAMES), m)
        _set_apart(rng, fk, b[on])
        index, name = _classes(rng, kind)
        fk = np.where(kind == "colours", index, fk)
        small = crowded & ((count[on] > 1) | (rng.random(m) < 0.4))
        half = np.where(small, rng.uniform(0.16, 0.45, m), rng.uniform(0.5, 0.95, m))
        half = half.astype(np.float32)
        reach = np.where(small, 1.0 - half, np.minimum(0.18, 1.02 - half))
        centre = (rng.uniform(-1, 1, (m, 2)) * reach[:, None]).astype(np.float32)
        full = (kind == "textures") & ~small
        half[full], centre[full] = 1.05, 0
        turn = rng.uniform(-0.2, 0.2, m)
        part = canvas[on]
        things = Things(kind, name, RGB[fk], RGB[b[on]], centre, half, turn)
        painter.draw(part, things, rng, (2.2, 5.5))
        canvas[on] = part
        names[on, k] = [NAME_INDEX[pair] for pair in zip(kind, name)]
        colours[on, k] = np.where(kind == "signs", -1, fk)
    images = painter.finish(canvas, rng, 0.12, (0.6, 1.0))
    return images, [_caption(names[i], colours[i], b[i], rng) for i in range(n)], names, colours


def stickers(
    images: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Images (N, 32, 32, 3) uint8 with a small named sticker on each: 5 to 8 px, anywhere, often
    in a corner.

    A sticker is an opaque square of one colour with one object on it. Returns the new images,
    words for each sticker, and names (N,) as indices into :data:`NAMES`. Captions that name the
    sticker teach a base to read small things.
    """
    n, shares = len(images), TABLE["on_stickers"]
    kind = rng.choice(np.array(list(shares)), n, p=list(shares.values()))
    index, name = _classes(rng, kind)
    fore, back = _colours(rng, n, "base")
    fore = np.where(kind == "colours", index, fore)
    _set_apart(rng, back, fore)
    half = rng.uniform(0.16, 0.26, n).astype(np.float32)
    centre = rng.uniform(-1, 1, (n, 2))
    centre = np.where(rng.random((n, 2)) < 0.5, np.sign(centre), centre)
    centre = (centre * (1 - half)[:, None]).astype(np.float32)
    canvas = images.astype(np.float32) / 255
    painter.paint(canvas, painter.window(centre, half), RGB[back])
    turn = rng.uniform(-0.1, 0.1, n)
    things = Things(kind, name, RGB[fore], RGB[back], centre, 0.86 * half, turn)
    painter.draw(canvas, things, rng)
    coloured = (rng.random(n) < 0.4) & (kind != "signs")
    told = [COLOUR_NAMES[colour] if on else None for colour, on in zip(fore, coloured)]
    names = np.array([NAME_INDEX[pair] for pair in zip(kind, name)], int)
    return painter.to_bytes(canvas), list(map(phrase, kind, name, told)), names


def _caption(names, colours, back, rng) -> str:
    """A caption of the objects in random order; colour and background are named half of the
    time."""
    there = [i for i in range(4) if names[i] >= 0]
    rng.shuffle(there)
    style = rng.random(3)
    told = {i: COLOUR_NAMES[colours[i]] for i in there if style[0] < 0.5 and colours[i] >= 0}
    text = " and ".join(phrase(*NAMES[names[i]], told.get(i)) for i in there)
    if style[1] < 0.3:
        text = "a photo of " + text
    if style[2] < 0.3:
        text += f" on {COLOUR_NAMES[back]}"
    return text


# Tasks


def task_arrays(task: str, split: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) uint8 and labels (n,) int64 of one toy task, classes balanced to one.

    ``split`` is train, dev or test: each has its own fonts, colour pairs, tilts and frequencies.
    Raises BvError for an unknown task or split.
    """
    check_choice("toy task", task, TASKS)
    check_choice("split", split, TABLE["held_out"])
    rng = numpy_rng(seed, "toyworld", task, split)
    look, own, classes = TABLE["looks"][task], TABLE["held_out"][split], KINDS[task]
    labels = rng.permutation(np.arange(n) % len(classes))
    name = np.array([classes[i] for i in labels], dtype=object)
    fore, back = _colours(rng, n, split, labels.copy() if task == "colours" else None)
    canvas = painter.background(rng, back, look["gradient"])
    half = rng.uniform(*look["half"], n).astype(np.float32)
    centre = (rng.uniform(-1, 1, (n, 2)) * np.maximum(1.0 - half, 0.05)[:, None]).astype(np.float32)
    if task == "textures":
        centre[:] = 0
    turn = rng.uniform(*own["tilt"], n) * look["tilt"] * rng.choice([-1, 1], n)
    kind = np.full(n, task)
    things = Things(kind, name, RGB[fore], RGB[back], centre, half, turn, split)
    painter.draw(canvas, things, rng, own["frequency"])
    blurred = painter.blur(canvas.transpose(0, 3, 1, 2), 3).transpose(0, 2, 3, 1)
    images = painter.finish(
        (1 - LENS) * canvas + LENS * blurred, rng, look["noise"], look["contrast"]
    )
    return images, labels.astype(np.int64)
