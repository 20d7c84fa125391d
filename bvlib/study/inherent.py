"""Inherent and injected: what clean models do with a trigger, and how much of an attack's success
was there before the attack (Backdoor Vectors, inherent triggers)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bvlib.core import metrics
from bvlib.core.encoder import Model
from bvlib.study import experiments
from bvlib.worlds.tasks import Task

PARTS = ("both (inherent)", "attacked merge only (injected)", "clean merge only", "neither")


def obeyed(
    models: Mapping[str, Model],
    triggers: Mapping[str, Any],
    task: Task,
    target: int,
    /,
    **labels: Any,
) -> pd.DataFrame:
    """ASR (percent, with its interval) of every trigger on every model, one row each.

    Columns: ``labels``, model, trigger, asr, low, high, images.
    """
    rows = []
    for name, model in models.items():
        for shown, trigger in triggers.items():
            rate = experiments.asr(model, task, trigger, target)
            found = {**labels, "model": name, "trigger": shown}
            rows.append({**found, **experiments.row(rate, "asr"), "images": rate.count})
    return pd.DataFrame(rows)


def by_size(
    sides: list[int],
    models: Mapping[str, Model],
    patches: Callable[[int], Mapping[str, Any]],
    task: Task,
    target: int,
) -> pd.DataFrame:
    """:func:`obeyed` for patches of several sides in pixels; the column "pixels (%)" is the share
    of the image that they cover."""
    (height, width), found = task.test.images.shape[1:3], []
    for side in sides:
        size = {"side": side, "pixels (%)": 100 * side**2 / (height * width)}
        found.append(obeyed(models, patches(side), task, target, **size))
    return pd.concat(found, ignore_index=True).drop(columns="images")


def effort(
    tried: list[tuple[str, Any, Any]], models: Mapping[str, Model], task: Task, target: int
) -> pd.DataFrame:
    """:func:`obeyed` for triggers (question, value, trigger): with how much work, at which place,
    optimised on what."""
    found = [
        obeyed(models, {"": trigger}, task, target, question=question, value=value)
        for question, value, trigger in tried
    ]
    return pd.concat(found, ignore_index=True).drop(columns=["trigger", "images"])


def by_class(
    patches: Mapping[int, Mapping[str, Any]], models: Mapping[str, Model], task: Task
) -> pd.DataFrame:
    """ASR (percent) of triggers by target class {class: {name: trigger}}: a row a class, a column
    "model / trigger" each."""
    found = [
        obeyed(models, triggers, task, c, target=task.classnames[c])
        for c, triggers in patches.items()
    ]
    table = pd.concat(found)
    table["shown"] = table["model"] + " / " + table["trigger"]
    return (
        experiments.matrix(table, "target", "shown", "asr").rename_axis(columns=None).reset_index()
    )


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
        **experiments.row(gain, "attacked - clean"),
        **experiments.row(share, "inherent share of ASR (%)", "share low", "share high"),
    }


def excess(table: pd.DataFrame, model: str, trigger: str, control: str) -> float:
    """ASR of a trigger above that of a control on one model of :func:`obeyed`, in points."""
    at = table.set_index(["model", "trigger"])["asr"]
    return at[model, trigger] - at[model, control]
