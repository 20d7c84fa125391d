"""Inherent and injected: what clean models do with a trigger, and how much of an attack's success
was there before the attack (Backdoor Vectors, inherent triggers)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bvlib.core import metrics
from bvlib.core.encoder import Model
from bvlib.study import experiments
from bvlib.worlds.tasks import Task

PARTS = (
    "both (inherent)",
    "attacked merge only (injected)",
    "clean merge only",
    "neither",
)


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
            r = experiments.asr(model, task, trigger, target)
            rows.append(
                {
                    **labels,
                    "model": name,
                    "trigger": shown,
                    "asr": r.percent,
                    "low": r.low,
                    "high": r.high,
                    "images": r.count,
                }
            )
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
    height, width = task.test.images.shape[1:3]
    found = [
        obeyed(
            models,
            patches(side),
            task,
            target,
            **{"side": side, "pixels (%)": 100 * side**2 / (height * width)},
        )
        for side in sides
    ]
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
    table = pd.concat(found).pivot_table(
        index="target", columns=["model", "trigger"], values="asr", sort=False
    )
    return table.set_axis([" / ".join(c) for c in table.columns], axis=1).reset_index()


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
        "attacked - clean": gain.points,
        "low": gain.low,
        "high": gain.high,
        "inherent share of ASR (%)": share.percent,
        "share low": share.low,
        "share high": share.high,
    }


def excess(table: pd.DataFrame, model: str, trigger: str, control: str) -> float:
    """ASR of a trigger above that of a control on one model of :func:`obeyed`, in points."""
    at = table.set_index(["model", "trigger"])["asr"]
    return at[model, trigger] - at[model, control]
