"""The datasets of both papers as one table: source, layout, licence, split rule, counts, class
names, prompts.

The entries are those of table.yaml, which says where they come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bvlib.core.errors import unknown
from bvlib.worlds.images import read_table

USUAL_STEPS = 2000  # of fine-tuning: what the epochs come to, for a dataset that has none
MOST_DEV = 5000  # images; dev is a tenth of the training images, at most this many
COLUMNS = [
    "name",
    "what",
    "classes",
    "train",
    "dev",
    "test",
    "licence",
    "source",
    "layout",
    "split",
    "class names",
    "prompts",
    "by hand",
]
IMAGENET = ("ImageNet",)  # stands for the 80 prompts that open_clip carries


@dataclass(frozen=True)
class File:
    """One file to bring: where it is kept below the reader's folder, and what becomes of it there.

    ``url`` is "" when it must be put there by hand from ``page``. ``digest`` is its md5 (32 hex
    digits) or sha256 (64), "" where none is published. ``into`` is the folder it is unpacked in
    (None: it is read as it is), and ``gives`` a path below the reader's folder that is there once
    it is unpacked.
    """

    path: str
    url: str = ""
    digest: str = ""
    into: str | None = None
    gives: str = ""
    page: str = ""


@dataclass(frozen=True)
class Row:
    """What is known of a dataset. ``train`` counts the images before dev is taken out of them.

    ``train`` may be a pair: the range it may lie in. ``dev`` is the size of a dev split that the
    set has of its own (0: it is drawn from train). ``names`` says where the class names come from,
    ``layout`` what lies below the reader's folder, ``split`` the rule of the papers' code.
    ``classnames`` are given where the archive carries none, by label or by class folder, and
    ``epochs`` of fine-tuning where the papers' code has them (0: none).
    """

    name: str
    what: str
    classes: int
    train: int | tuple[int, int]
    test: int
    licence: str
    source: str
    layout: str
    split: str
    names: str
    prompts: tuple[str, ...]
    files: tuple[File, ...]
    dev: int = 0
    epochs: int = 0
    classnames: tuple[str, ...] | Mapping[str, str] = ()

    def drawn_dev(self, train: int) -> int:
        """Dev images taken out of ``train`` training images."""
        return 0 if self.dev else min(train // 10, MOST_DEV)


def _row(files: tuple[dict, ...], **fields: Any) -> Row:
    return Row(files=tuple(File(**file) for file in files), **fields)


ROWS: dict[str, Row] = read_table(Path(__file__).with_name("table.yaml"), _row)


def row(name: str) -> Row:
    """The entry of a dataset. Raises BvError for an unknown name.

    >>> row("pets").classes
    37
    """
    if name not in ROWS:
        raise unknown("dataset of the papers", name, ROWS)
    return ROWS[name]


@cache
def prompts(name: str) -> tuple[str, ...]:
    """Prompt templates of a dataset, each with one ``{}``. Raises BvError for an unknown name."""
    if row(name).prompts != IMAGENET:
        return row(name).prompts
    from bvlib.core import _torchvision  # noqa: F401  (must come before open_clip)
    from open_clip import OPENAI_IMAGENET_TEMPLATES  # isort: skip

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def steps(name: str, images: int, train: Mapping[str, Any]) -> int:
    """Steps of a fine-tuning on ``images`` training images: those of the recipe ``train``.

    The recipe has steps and batch. Where it names no steps, they are the epochs of the public
    BadMerging code, or our 2,000 for a dataset that it does not have.
    """
    epochs = ROWS[name].epochs if name in ROWS else 0
    return train["steps"] or epochs * -(-images // train["batch"]) or USUAL_STEPS


def describe() -> pandas.DataFrame:  # noqa: F821
    """The table, a row a dataset: train is counted after dev is taken out of it.

    Train is a text "a to b" where it may vary.
    """
    import pandas

    rows = []
    for one in ROWS.values():
        ends = one.train if isinstance(one.train, tuple) else (one.train,)
        train = [n - one.drawn_dev(n) for n in ends]
        told = {key: getattr(one, key) for key in COLUMNS if hasattr(one, key)}
        told["train"] = train[0] if len(train) == 1 else f"{train[0]:,} to {train[-1]:,}"
        told |= {"dev": one.dev or one.drawn_dev(ends[0]), "class names": one.names}
        told["prompts"] = 80 if one.prompts == IMAGENET else len(one.prompts)
        rows.append(told | {"by hand": any(not file.url for file in one.files)})
    return pandas.DataFrame(rows, columns=COLUMNS)
