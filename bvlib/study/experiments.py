"""Experiments: models and tasks in, tidy tables out. Every table knows its controls.

Nothing here trains, reads a file or knows a profile: a stranger can import these functions into
other work. ASR, CA and BA are defined in :mod:`bvlib.core.metrics`; all numbers are percent.
"""

from __future__ import annotations

from typing import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from bvlib.core import metrics
from bvlib.core.vectors import StateDict, TaskVector
from bvlib.worlds.tasks import Task


def predict(encoder, theta: StateDict, task: Task, trigger=None, split: str = "test"):
    """Predicted classes (N,) of a split, with the trigger pasted when given.

    ``encoder``, here and below, is one encoder or, where a merge has adapters by task (Surgery), a
    dict from task to encoder.
    """
    encoder = encoder[task.name] if isinstance(encoder, Mapping) else encoder
    return encoder.predict(
        theta, getattr(task, split).images, encoder.head(task.classnames, task.prompts), trigger
    )


def accuracy(encoder, theta: StateDict, task: Task, split: str = "test") -> metrics.Rate:
    """Clean accuracy on one task."""
    return metrics.accuracy(predict(encoder, theta, task, split=split), getattr(task, split).labels)


def accuracies(
    encoder, theta: StateDict, tasks: Mapping[str, Task], split: str = "test"
) -> pd.Series:
    """Clean accuracy of every task, in percent, and their mean under the name "mean"."""
    values = pd.Series(
        {name: accuracy(encoder, theta, task, split).percent for name, task in tasks.items()}
    )
    return pd.concat([values, pd.Series({"mean": values.mean()})])


def correct(
    encoder, theta: StateDict, tasks: Mapping[str, Task], split: str = "test"
) -> dict[str, np.ndarray]:
    """For every task and image: is it classified correctly? The hits behind CA and BA."""
    return {
        name: (predict(encoder, theta, task, split=split) == getattr(task, split).labels).numpy()
        for name, task in tasks.items()
    }


def merge_row(
    attacked: tuple,
    clean: tuple,
    backdoor,
    *,
    tasks: Mapping[str, Task],
    goal: Task,
    control,
    was_correct: Mapping[str, np.ndarray] | None = None,
) -> dict[str, float]:
    """One row of a main table: CA, BA, ASR and the controls of an attacked merge beside the clean
    merge by the same method.

    ``attacked`` and ``clean`` are (encoder, theta); ``goal`` the task whose images the attack
    flips; ``control`` a random patch; ``was_correct`` what :func:`correct` gives for the clean
    merge, when it is known already. CA - BA is paired over the images of all tasks together; ASR
    minus clean merge over those of ``goal``; both with intervals over images.
    """
    before, after = was_correct or correct(*clean, tasks), correct(*attacked, tasks)
    ca, ba = ({name: 100 * hits.mean() for name, hits in each.items()} for each in (before, after))
    cost = metrics.paired_difference(
        *(np.concatenate(list(each.values())) for each in (before, after))
    )
    hits, inherent = (
        flipped(*model, goal, backdoor.trigger, backdoor.target) for model in (attacked, clean)
    )
    rate, gain = metrics.rate(hits), metrics.paired_difference(hits, inherent)
    return {
        "CA": np.mean(list(ca.values())),
        "BA": np.mean(list(ba.values())),
        "CA - BA": cost.points,
        "cost low": cost.low,
        "cost high": cost.high,
        "CA adversary": ca[backdoor.task],
        "BA adversary": ba[backdoor.task],
        "ASR": rate.percent,
        "low": rate.low,
        "high": rate.high,
        "ASR, clean merge": 100 * inherent.mean(),
        "ASR - clean merge": gain.points,
        "gain low": gain.low,
        "gain high": gain.high,
        "random patch": asr(*attacked, goal, control, backdoor.target).percent,
        "no trigger": asr(*attacked, goal, None, backdoor.target).percent,
    }


def flipped(
    encoder, theta: StateDict, task: Task, trigger, target: int, split: str = "test"
) -> np.ndarray:
    """For each image whose true class is not the target: is it predicted as the target? The hits
    behind ASR."""
    predicted = predict(encoder, theta, task, trigger, split)
    return (predicted == target)[getattr(task, split).labels != target].numpy()


def asr(
    encoder, theta: StateDict, task: Task, trigger, target: int, split: str = "test"
) -> metrics.Rate:
    """Attack success rate of a trigger on a model (without a trigger: the false-target rate)."""
    return metrics.attack_success_rate(
        predict(encoder, theta, task, trigger, split), getattr(task, split).labels, target
    )


def asr_rows(
    encoder,
    *,
    attacked: StateDict,
    clean: StateDict,
    base: StateDict,
    task: Task,
    trigger,
    control,
    target: int,
    model: str = "merge",
) -> pd.DataFrame:
    """The five rows without which an ASR measures the trigger, not the attack.

    attacked model + trigger, clean model + trigger, base + trigger, attacked model + random patch,
    attacked model without a trigger (false-target rate). ``control`` is the random patch of the
    same size and place.
    """
    rows = [
        (f"attacked {model}", "trigger", attacked, trigger),
        (f"clean {model}", "trigger", clean, trigger),
        ("base", "trigger", base, trigger),
        (f"attacked {model}", "random patch", attacked, control),
        (f"attacked {model}", "no trigger", attacked, None),
    ]
    out = []
    for name, what, theta, pasted in rows:
        r = asr(encoder, theta, task, pasted, target)
        out.append(
            {
                "model": name,
                "input": what,
                "asr": r.percent,
                "low": r.low,
                "high": r.high,
                "images": r.count,
            }
        )
    return pd.DataFrame(out)


def along(
    encoder,
    model: Callable[[float], StateDict],
    scales: Sequence[float],
    *,
    tasks: Mapping[str, Task],
    adversary: Task,
    trigger,
    target: int,
    clean_split: str = "test",
    goal: Task | None = None,
) -> pd.DataFrame:
    """What happens along a path of models: one row a scale, ``model(scale)`` gives the weights.

    Clean accuracy is taken on ``clean_split`` (a defence chooses on "dev"), ASR always on test
    images of ``goal``: the adversary's own task unless another is given (off-task).

    Columns: scale, accuracy (mean over tasks), adversary_accuracy, asr with its interval (low,
    high). The scaling curve of a backdoor vector (``lambda s: clean + s * bv``), the ASR–BA
    frontier of an attack and the path of a defence (``lambda s: merged - s * bv``) are this one
    function.
    """
    rows = []
    for scale in scales:
        theta = model(float(scale))
        each = accuracies(encoder, theta, tasks, clean_split)
        own = (
            each[adversary.name]
            if adversary.name in each
            else accuracy(encoder, theta, adversary, clean_split).percent
        )
        r = asr(encoder, theta, adversary if goal is None else goal, trigger, target)
        rows.append(
            {
                "scale": float(scale),
                "accuracy": each["mean"],
                "adversary_accuracy": own,
                "asr": r.percent,
                "low": r.low,
                "high": r.high,
            }
        )
    return pd.DataFrame(rows)


def cosines(vectors: Mapping[str, TaskVector]) -> pd.DataFrame:
    """Matrix of cosine similarities, labelled by name."""
    names = list(vectors)
    table = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            table.loc[a, b] = table.loc[b, a] = vectors[a].cosine(vectors[b])
    return table


PLACEBOS = ("two clean seeds", "noise")


def transfer_matrix(
    encoder,
    axes: Mapping[str, Mapping],
    *,
    clean: Callable[[str], StateDict],
    task: Callable[[str], Task],
    drift: TaskVector,
    seed: int = 0,
    scale: float = 1.0,
    more: Mapping[str, Mapping[str, TaskVector]] | None = None,
) -> pd.DataFrame:
    """:func:`transfer` of every backdoor on an axis onto every other: the rows of ``axes`` {axis:
    {name: backdoor}}.

    ``clean`` and ``task`` give θ_clean and the task of a task's name. The placebos beside them
    (:data:`PLACEBOS`) are ``drift``, the difference of two clean models, and noise drawn by
    ``seed``, both with the norm of the attack's own vector; ``more`` are other vectors by axis.
    Adds the columns axis, attack, placebo, itself.
    """
    rows = []
    for axis, members in axes.items():
        for name, a in members.items():
            vectors = {n: b.vector for n, b in members.items()} | dict((more or {}).get(axis, {}))
            vectors |= dict(
                zip(
                    PLACEBOS, (drift * (a.vector.norm() / drift.norm()), a.vector.random_like(seed))
                )
            )
            found = transfer(encoder, clean(a.task), a, vectors, task(a.goal_task), scale)
            rows.append(
                found.assign(
                    axis=axis,
                    attack=name,
                    placebo=found["vector"].isin(PLACEBOS),
                    itself=found["vector"] == name,
                )
            )
    return pd.concat(rows, ignore_index=True)


def transfer(
    encoder,
    clean: StateDict,
    attack,
    vectors: Mapping[str, TaskVector],
    task: Task,
    scale: float = 1.0,
) -> pd.DataFrame:
    """Backdoor transfer onto one attack: what other vectors do to the attack's own trigger.

    ``attack`` has ``vector``, ``trigger``, ``target`` and ``theta``. For every vector V: ASR of
    the attack's trigger on θ_clean + s·V (addition) and on θ_backdoored − s·V (subtraction), each
    also normalised by what the attack's own vector does (100 = as much as itself; blank where that
    is under 10 points). Our operationalisation: the paper's formula is not public.
    """

    def at(theta) -> float:
        return asr(encoder, theta, task, attack.trigger, attack.target).percent

    zero, full = at(clean), at(attack.theta)
    own_added, own_removed = (
        at(clean + scale * attack.vector),
        at(attack.theta - scale * attack.vector),
    )
    rows = []
    for name, vector in vectors.items():
        added, removed = at(clean + scale * vector), at(attack.theta - scale * vector)
        rows.append(
            {
                "vector": name,
                "cosine": attack.vector.cosine(vector),
                "asr_added": added,
                "added": metrics.normalised_transfer(added, zero, own_added),
                "asr_removed": removed,
                "removed": metrics.normalised_transfer(full - removed, 0.0, full - own_removed),
            }
        )
    return pd.DataFrame(rows)
