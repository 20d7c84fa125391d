"""Experiments: models and tasks in, tidy tables out. Every table knows its controls.

Nothing here trains, reads a file or knows a profile: a stranger can import these functions into
other work. ASR, CA and BA are defined in :mod:`bvlib.core.metrics`; all numbers are percent.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from bvlib.core import metrics
from bvlib.core.encoder import Model
from bvlib.core.vectors import TaskVector
from bvlib.worlds.tasks import Task

Tasks = Mapping[str, Task]
TaskOf = Callable[[str], Task]
Vectors = Mapping[str, TaskVector]
Models = Mapping[str, Model]
Percents = Mapping[str, float]
Measured = metrics.Rate | metrics.Difference


def accuracy(model: Model, task: Task, split: str = "test") -> metrics.Rate:
    """Clean accuracy on one task."""
    return metrics.accuracy(model.predict(task, split=split), getattr(task, split).labels)


def accuracies(model: Model, tasks: Tasks, split: str = "test") -> pd.Series:
    """Clean accuracy of every task, in percent, and their mean under the name "mean"."""
    values = pd.Series({name: accuracy(model, task, split).percent for name, task in tasks.items()})
    return pd.concat([values, pd.Series({"mean": values.mean()})])


def mean_accuracy(model: Model, tasks: Tasks, split: str = "test") -> float:
    """Clean accuracy in percent, averaged over tasks."""
    return accuracies(model, tasks, split)["mean"]


def row(
    value: Measured, name: str = "ASR", low: str = "low", high: str = "high"
) -> dict[str, float]:
    """The columns that show a rate (percent) or a difference (points) and its interval."""
    middle = value.points if isinstance(value, metrics.Difference) else value.percent
    return {name: middle, low: value.low, high: value.high}


def matrix(table: pd.DataFrame, index: str, columns: str, values: str) -> pd.DataFrame:
    """A tidy table as a matrix whose rows and columns stay in the order in which they appear."""
    wide = table.pivot(index=index, columns=columns, values=values)
    return wide.loc[table[index].unique(), table[columns].unique()]


def correct(model: Model, tasks: Tasks) -> dict[str, np.ndarray]:
    """For every task and test image: is it classified correctly? The hits behind CA and BA."""
    return {n: (model.predict(task) == task.test.labels).numpy() for n, task in tasks.items()}


def flipped(model: Model, task: Task, trigger, target: int) -> np.ndarray:
    """For each test image whose true class is not the target: is it predicted as the target? The
    hits behind ASR."""
    return (model.predict(task, trigger) == target)[task.test.labels != target].numpy()


def asr(model: Model, task: Task, trigger, target: int) -> metrics.Rate:
    """Attack success rate of a trigger on a model, on test images (without a trigger: the
    false-target rate)."""
    predicted, labels = model.predict(task, trigger), task.test.labels
    return metrics.attack_success_rate(predicted, labels, target, len(task.classnames))


def flips(model: Model, backdoor, goal: Task) -> np.ndarray:
    """:func:`flipped` for a backdoor's own trigger and target, on test images of ``goal``."""
    return flipped(model, goal, backdoor.trigger, backdoor.target)


def hit(model: Model, backdoor, goal: Task) -> metrics.Rate:
    """:func:`asr` of a backdoor's own trigger and target, on test images of ``goal``."""
    return asr(model, goal, backdoor.trigger, backdoor.target)


def aim(backdoor, goal: Task) -> dict:
    """What :func:`along` must know of a backdoor that flips images of ``goal``."""
    return {"trigger": backdoor.trigger, "target": backdoor.target, "goal": goal}


def along(
    path: Callable[[float], Model],
    scales: Sequence[float],
    *,
    tasks: Tasks,
    adversary: Task,
    trigger,
    target: int,
    clean_split: str = "test",
    goal: Task | None = None,
) -> pd.DataFrame:
    """What happens along a path of models: one row a scale, ``path(scale)`` gives the model.

    Clean accuracy of ``tasks``, the ``adversary`` among them, is taken on ``clean_split`` (a
    defence chooses on "dev"), ASR always on test
    images of ``goal``: the adversary's own task unless another is given (off-task).

    Columns: scale, accuracy (mean over tasks), adversary_accuracy, asr with its interval (low,
    high). The scaling curve of a backdoor vector (``lambda s: clean + s * bv``), the ASR–BA
    frontier of an attack and the path of a defence (``lambda s: merged - s * bv``) are this one
    function.
    """
    rows = []
    for scale in scales:
        model = path(float(scale))
        each = accuracies(model, tasks, clean_split)
        rate = asr(model, adversary if goal is None else goal, trigger, target)
        clean = {"accuracy": each["mean"], "adversary_accuracy": each[adversary.name]}
        rows.append({"scale": float(scale), **clean, **row(rate, "asr")})
    return pd.DataFrame(rows)


def reached(rising: Sequence[float], level: float, values: Sequence[float]) -> float:
    """The value of a path where ``rising`` (its ASR, its cost) first reaches a level, between its
    points; not a number where it never does, or begins above it."""
    risen = np.maximum.accumulate(np.asarray(rising, dtype=float))
    if not risen[0] <= level <= risen[-1]:
        return float("nan")
    there = int((risen >= level).argmax())
    around = slice(max(0, there - 1), there + 1)
    return float(np.interp(level, risen[around], np.asarray(values, dtype=float)[around]))
