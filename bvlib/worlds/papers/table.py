"""The datasets of both papers as one table: source, layout, licence, split rule, counts, class
names, prompts.

The entries are those of table.yaml, which says where they come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bvlib.core.errors import check_choice
from bvlib.worlds.table import DatasetInfo, read_table

USUAL_STEPS = 2000  # of fine-tuning: what the epochs come to, for a dataset that has none
IMAGENET = ("ImageNet",)  # stands for the 80 prompts that open_clip carries


ROWS = read_table(Path(__file__).with_name("table.yaml"))


def row(name: str) -> DatasetInfo:
    """The entry of a dataset. Raises BvError for an unknown name.

    >>> row("pets").classes
    37
    """
    check_choice("dataset of the papers", name, ROWS)
    return ROWS[name]


@cache
def prompts(name: str) -> tuple[str, ...]:
    """Prompt templates of a dataset, each with one ``{}``. Raises BvError for an unknown name."""
    if row(name).templates != IMAGENET:
        return row(name).templates
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
    """What `bv data list --paper` shows, a row a dataset: train is counted after dev is taken out
    of it, GB are those once prepared at 224 px.

    Train is a text "a to b" where it may vary.
    """
    import pandas

    rows = []
    for one in ROWS.values():
        ends = one.train if isinstance(one.train, tuple) else (one.train,)
        train, dev = [n - one.drawn_dev(n) for n in ends], one.dev or one.drawn_dev(ends[0])
        told = {key: getattr(one, key) for key in ("name", "what", "classes")}
        told["train"] = train[0] if len(train) == 1 else f"{train[0]:,} to {train[-1]:,}"
        told |= {"dev": dev, "test": one.test}
        told["prompts"] = 80 if one.templates == IMAGENET else len(one.templates)
        told["GB"] = round((train[-1] + dev + one.test) * 3 * 224**2 / 1e9, 1)
        by_hand = any(not file.url for file in one.files)
        told["files"] = "some by hand" if by_hand else "bv data fetch"
        rows.append(told | {"licence": one.licence})
    return pandas.DataFrame(rows)
