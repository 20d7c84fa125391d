"""Inherent and injected: what clean models do with a trigger, and how much of an attack's success
was there before the attack (Backdoor Vectors, inherent triggers)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bvlib.core import metrics
from bvlib.study import experiments
from bvlib.study.experiments import Models, row
from bvlib.worlds.tasks import Task

PARTS = ("both (inherent)", "attacked merge only (injected)", "clean merge only", "neither")


def obeyed(
    models: Models, triggers: Mapping[str, Any], task: Task, target: int, /, **labels: Any
) -> pd.DataFrame:
    """ASR (percent, with its interval) of every trigger on every model, one row each.

    Columns: ``labels``, model, trigger, asr, low, high, images.
    """
    rows = []
    for name, model in models.items():
        for shown, trigger in triggers.items():
            rate = experiments.asr(model, task, trigger, target)
            found = {**labels, "model": name, "trigger": shown}
            rows.append({**found, **row(rate, "asr"), "images": rate.count})
    return pd.DataFrame(rows)


def by_size(
    sides: list[int], models: Models, patches: Callable[[int], Mapping], task: Task, target: int
) -> pd.DataFrame:
    """:func:`obeyed` for patches of several sides in pixels; the column "pixels (%)" is the share
    of the image that they cover."""
    (height, width), found = task.test.images.shape[1:3], []
    for side in sides:
        size = {"side": side, "pixels (%)": 100 * side**2 / (height * width)}
        found.append(obeyed(models, patches(side), task, target, **size))
    return pd.concat(found, ignore_index=True).drop(columns="images")


def effort(
    tried: list[tuple[str, Any, Any]], models: Models, task: Task, target: int
) -> pd.DataFrame:
    """:func:`obeyed` for triggers (question, value, trigger): with how much work, at which place,
    optimised on what."""
    found = []
    for question, value, trigger in tried:
        asked = {"question": question, "value": value}
        found.append(obeyed(models, {"": trigger}, task, target, **asked))
    return pd.concat(found, ignore_index=True).drop(columns=["trigger", "images"])


def by_class(patches: Mapping[int, Mapping[str, Any]], models: Models, task: Task) -> pd.DataFrame:
    """ASR (percent) of triggers by target class {class: {name: trigger}}: a row a class, a column
    "model / trigger" each."""
    names = task.classnames
    table = pd.concat(obeyed(models, p, task, c, target=names[c]) for c, p in patches.items())
    table["shown"] = table["model"] + " / " + table["trigger"]
    wide = experiments.matrix(table, "target", "shown", "asr")
    return wide.rename_axis(columns=None).reset_index()


def split(attacked: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """The success of an attack split, image by image, into what was there before and what it
    added.

    ``attacked`` and ``clean`` (N,) bool say which images the trigger flips on the attacked and on
    the clean merge. Gives the four counts (:data:`PARTS`) in percent of the images, the difference
    attacked − clean in points (paired over images), and the inherent share of the ASR: the share of
    the images flipped on the attacked merge that the clean merge flips as well (0 where none is
    flipped), in percent. All with intervals over images.
    """
    gain = metrics.paired_difference(attacked, clean)
    share = metrics.rate(clean[attacked] if attacked.any() else [False])
    parts = (attacked & clean, attacked & ~clean, ~attacked & clean, ~attacked & ~clean)
    return {
        **{what: 100 * part.mean() for what, part in zip(PARTS, parts)},
        "images": len(clean),
        **row(gain, "attacked - clean"),
        **row(share, "inherent share of ASR (%)", "share low", "share high"),
    }


def excess(table: pd.DataFrame, model: str, trigger: str, control: str) -> float:
    """ASR of a trigger above that of a control on one model of :func:`obeyed`, in points."""
    at = table.set_index(["model", "trigger"])["asr"]
    return at[model, trigger] - at[model, control]
