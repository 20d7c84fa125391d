"""What a backdoor vector does as it is scaled, and on models that it was not computed from.

θ(λ_BV) = θ_clean + λ_BV · BV: addition injects, subtraction removes, an analogy carries the
backdoor over (*Backdoor Vectors*, arXiv 2510.08016). All rates are percent.
"""

from collections.abc import Callable, Sequence

import pandas as pd

from bvlib.core.encoder import Model
from bvlib.core.vectors import TaskVector
from bvlib.study.experiments import Models, Tasks, Vectors, accuracy, aim, along, hit, row
from bvlib.worlds.tasks import Task


def curves(
    vectors: Vectors,
    model: Callable[[TaskVector], Model],
    scales: Sequence[float],
    *,
    tasks: Tasks,
    backdoor,
    adversary: Task,
    goal: Task,
) -> pd.DataFrame:
    """:func:`experiments.along` for each vector v: what ``model(s · v)`` does at every scale s, the
    vector's name in column "vector"."""
    about, paths = {"tasks": tasks, "adversary": adversary, **aim(backdoor, goal)}, []
    for name, vector in vectors.items():
        path = along(lambda s, v=vector: model(s * v), scales, **about)
        paths.append(path.assign(vector=name))
    return pd.concat(paths, ignore_index=True)


def of(table: pd.DataFrame, vector: str) -> pd.DataFrame:
    """The rows of one vector."""
    return table[table["vector"] == vector].reset_index(drop=True)


def at(curve: pd.DataFrame, scale: float, column: str) -> float:
    """A column of one vector's curve at the measured scale nearest to ``scale``."""
    return float(curve.loc[(curve["scale"] - scale).abs().idxmin(), column])


def steps(curve: pd.DataFrame, scales: Sequence[float] = (-1, 0, 0.3, 1, 2)) -> pd.DataFrame:
    """Accuracy and ASR at a few scales: subtraction, the clean model, a third of the BV, the
    backdoored model, twice the BV."""
    rows = [(s, at(curve, s, "accuracy"), at(curve, s, "asr")) for s in scales]
    return pd.DataFrame(rows, columns=["λ_BV", "accuracy", "ASR"])


def measures(curve: pd.DataFrame) -> dict[str, float]:
    """What the claims on scaling are checked on, in points: the rise of ASR from λ_BV = 0 to 1, its
    fall from 0 to −1, and the largest move of accuracy between 0 and 1."""
    zero, inside = at(curve, 0, "asr"), curve[curve["scale"].between(0, 1)]["accuracy"]
    return {
        "asr_rise_over_scaling": at(curve, 1, "asr") - zero,
        "ca_flat_over_scaling": (inside - at(curve, 0, "accuracy")).abs().max(),
        "asr_fall_below_zero": zero - at(curve, -1, "asr"),
    }


def analogy(hosts: Models, backdoor, noise: TaskVector, *, task: Task, goal: Task) -> pd.DataFrame:
    """θ_host + BV: ASR of the backdoor's trigger on hosts without the BV, with it, and with a
    placebo of its norm; accuracy on the adversary's ``task`` before and after."""
    rows = []
    for name, host in hosts.items():
        models = host, host + backdoor.vector, host + noise
        before, after, fake = (hit(model, backdoor, goal) for model in models)
        plain, changed = (accuracy(model, task).percent for model in models[:2])
        found = {"host": name, "ASR": before.percent, **row(after, "ASR + BV")}
        found |= {"ASR + placebo (noise)": fake.percent, "accuracy": plain}
        rows.append(found | {"accuracy + BV": changed})
    return pd.DataFrame(rows)
