"""The toy world: procedural 32 x 32 images with captions, the embedded stand-in for the papers'
data.

:func:`task_arrays` draws six classification tasks of different kinds (shapes, digits, letters,
textures, signs, colours). Each has a look of its own, and train, dev and test hold out generative
factors: fonts (digits, letters), pairs of colours (all), pattern frequencies (textures), tilt
(signs, shapes). The scenes that bases are trained on (`bvmake.pretrain.scenes`) come out of the
same painter.

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
    NAMES,
    NUMBER_WORDS,
    PROMPTS,
    RGB,
    TABLE,
    TASKS,
    phrase,
)

__all__ = ["KINDS", "NAMES", "NUMBER_WORDS", "PROMPTS", "TASKS"]
__all__ += ["phrase", "task_arrays"]

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


def colours(rng, n, split: str, fore=None) -> tuple[np.ndarray, np.ndarray]:
    """Foreground and background colour indices, distinct and readable, from the split's pairs."""
    count, ok = len(COLOUR_NAMES), READABLE[split]
    f = rng.integers(0, count, n) if fore is None else fore
    best = (rng.random((n, count)) * ok[f]).argmax(1)
    lost = ~ok[f, best]
    if lost.any() and fore is None:
        f[lost], best[lost] = colours(rng, int(lost.sum()), split)
    return f, best


def set_apart(rng, colours: np.ndarray, others: np.ndarray) -> None:
    """Change the colours that equal their entry of ``others`` to any different one, in place."""
    same, count = colours == others, len(COLOUR_NAMES)
    colours[same] = (colours[same] + 1 + rng.integers(0, count - 1, same.sum())) % count


def classes(rng, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Any class of each kind: its index in the kind, and its name."""
    index = np.array([rng.integers(len(KINDS[k])) for k in kind], int)
    return index, np.array([KINDS[k][i] for k, i in zip(kind, index)], dtype=object)


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
    fore, back = colours(rng, n, split, labels.copy() if task == "colours" else None)
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
