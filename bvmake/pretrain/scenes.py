"""Captioned scenes of the toy world, and stickers with a name: what a base is trained on."""

import numpy as np

from bvlib.worlds import painter, toy
from bvlib.worlds.painter import Things
from bvlib.worlds.vocabulary import COLOUR_NAMES, KINDS, NAME_INDEX, NAMES, RGB, TABLE, phrase


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
    f, b = toy.colours(rng, n, "base")
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
        toy.set_apart(rng, fk, b[on])
        index, name = toy.classes(rng, kind)
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
    index, name = toy.classes(rng, kind)
    fore, back = toy.colours(rng, n, "base")
    fore = np.where(kind == "colours", index, fore)
    toy.set_apart(rng, back, fore)
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
