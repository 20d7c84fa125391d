"""Experiments: models and tasks in, tidy tables out. Every table knows its controls.

Nothing here trains, reads a file or knows a profile: a stranger can import these functions into
other work. ASR, CA and BA are defined in :mod:`bvlib.core.metrics`; all numbers are percent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from bvlib.core import metrics
from bvlib.core.encoder import Model
from bvlib.core.vectors import TaskVector
from bvlib.worlds.tasks import Task


def accuracy(model: Model, task: Task, split: str = "test") -> metrics.Rate:
    """Clean accuracy on one task."""
    return metrics.accuracy(model.predict(task, split=split), getattr(task, split).labels)


def accuracies(model: Model, tasks: Mapping[str, Task], split: str = "test") -> pd.Series:
    """Clean accuracy of every task, in percent, and their mean under the name "mean"."""
    values = pd.Series({name: accuracy(model, task, split).percent for name, task in tasks.items()})
    return pd.concat([values, pd.Series({"mean": values.mean()})])


def correct(model: Model, tasks: Mapping[str, Task], split: str = "test") -> dict[str, np.ndarray]:
    """For every task and image: is it classified correctly? The hits behind CA and BA."""
    return {
        name: (model.predict(task, split=split) == getattr(task, split).labels).numpy()
        for name, task in tasks.items()
    }


def merge_row(
    attacked: Model,
    clean: Model,
    backdoor,
    *,
    tasks: Mapping[str, Task],
    goal: Task,
    control,
    was_correct: Mapping[str, np.ndarray] | None = None,
) -> dict[str, float]:
    """One row of a main table: CA, BA, ASR and the controls of an attacked merge beside the clean
    merge by the same method.

    ``goal`` is the task whose images the attack
    flips; ``control`` a random patch; ``was_correct`` what :func:`correct` gives for the clean
    merge, when it is known already. CA - BA is paired over the images of all tasks together; ASR
    minus clean merge over those of ``goal``; both with intervals over images.
    """
    before, after = was_correct or correct(clean, tasks), correct(attacked, tasks)
    ca, ba = ({name: 100 * hits.mean() for name, hits in each.items()} for each in (before, after))
    cost = metrics.paired_difference(
        *(np.concatenate(list(each.values())) for each in (before, after))
    )
    hits, inherent = (
        flipped(model, goal, backdoor.trigger, backdoor.target) for model in (attacked, clean)
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
        "random patch": asr(attacked, goal, control, backdoor.target).percent,
        "no trigger": asr(attacked, goal, None, backdoor.target).percent,
    }


def flipped(model: Model, task: Task, trigger, target: int, split: str = "test") -> np.ndarray:
    """For each image whose true class is not the target: is it predicted as the target? The hits
    behind ASR."""
    predicted = model.predict(task, trigger, split)
    return (predicted == target)[getattr(task, split).labels != target].numpy()


def asr(model: Model, task: Task, trigger, target: int, split: str = "test") -> metrics.Rate:
    """Attack success rate of a trigger on a model (without a trigger: the false-target rate)."""
    return metrics.attack_success_rate(
        model.predict(task, trigger, split), getattr(task, split).labels, target
    )


def asr_rows(
    *,
    attacked: Model,
    clean: Model,
    base: Model,
    task: Task,
    trigger,
    control,
    target: int,
    what: str = "merge",
) -> pd.DataFrame:
    """The five rows without which an ASR measures the trigger, not the attack.

    attacked model + trigger, clean model + trigger, base + trigger, attacked model + random patch,
    attacked model without a trigger (false-target rate). ``control`` is the random patch of the
    same size and place.
    """
    rows = [
        (f"attacked {what}", "trigger", attacked, trigger),
        (f"clean {what}", "trigger", clean, trigger),
        ("base", "trigger", base, trigger),
        (f"attacked {what}", "random patch", attacked, control),
        (f"attacked {what}", "no trigger", attacked, None),
    ]
    out = []
    for name, shown, model, pasted in rows:
        r = asr(model, task, pasted, target)
        out.append(
            {
                "model": name,
                "input": shown,
                "asr": r.percent,
                "low": r.low,
                "high": r.high,
                "images": r.count,
            }
        )
    return pd.DataFrame(out)


def along(
    path: Callable[[float], Model],
    scales: Sequence[float],
    *,
    tasks: Mapping[str, Task],
    adversary: Task,
    trigger,
    target: int,
    clean_split: str = "test",
    goal: Task | None = None,
) -> pd.DataFrame:
    """What happens along a path of models: one row a scale, ``path(scale)`` gives the model.

    Clean accuracy is taken on ``clean_split`` (a defence chooses on "dev"), ASR always on test
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
        own = (
            each[adversary.name]
            if adversary.name in each
            else accuracy(model, adversary, clean_split).percent
        )
        r = asr(model, adversary if goal is None else goal, trigger, target)
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
    axes: Mapping[str, Mapping],
    *,
    clean: Callable[[str], Model],
    task: Callable[[str], Task],
    drift: TaskVector,
    seed: int = 0,
    scale: float = 1.0,
    more: Mapping[str, Mapping[str, TaskVector]] | None = None,
) -> pd.DataFrame:
    """:func:`transfer` of every backdoor on an axis onto every other: the rows of ``axes`` {axis:
    {name: backdoor}}.

    ``clean`` and ``task`` give the clean fine-tune and the task of a task's name. The placebos
    beside them (:data:`PLACEBOS`) are ``drift``, the difference of two clean models, and noise
    drawn by ``seed``, both with the norm of the attack's own vector; ``more`` are other vectors by
    axis. Adds the columns axis, attack, placebo, itself.
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
            found = transfer(clean(a.task), a, vectors, task(a.goal_task), scale)
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
    clean: Model,
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

    def at(model: Model) -> float:
        return asr(model, task, attack.trigger, attack.target).percent

    backdoored = Model(clean.encoder, attack.theta)
    zero, full = at(clean), at(backdoored)
    own_added = at(clean + scale * attack.vector)
    own_removed = at(backdoored - scale * attack.vector)
    rows = []
    for name, vector in vectors.items():
        added, removed = at(clean + scale * vector), at(backdoored - scale * vector)
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
