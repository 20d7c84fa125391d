"""Backdoor transfer: what one backdoor's vector does to another backdoor's trigger.

*Backdoor Vectors* (arXiv 2510.08016) compares backdoors so, along patch place, seed, target class
and task. Its formula is not known to us; :func:`normalised` is our reading.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from bvlib.attacks.triggers import PLACES
from bvlib.core.encoder import Model
from bvlib.core.vectors import TaskVector
from bvlib.study.experiments import Percents, TaskOf, Vectors, hit
from bvlib.worlds.tasks import Task

PLACEBOS = ("two clean seeds", "noise")
NEAR = ("place", "seed")  # the axes on which all backdoors aim at one target
FAR = {"class": "target class", "task": "task"}
OWN_TWIN = "seed, own θ_clean"  # a BV that shares no θ_clean with the others


def normalised(asr_at: float, asr_zero: float, asr_self: float, least: float = 10.0) -> float:
    """Backdoor transfer in percent of what the attack's own vector does; all arguments in percent.

    100 · (asr_at − asr_zero) / (asr_self − asr_zero): ASR of attack A with another vector B,
    without a vector, and with A's own BV. nan where A itself adds less than ``least`` points: a
    quotient of two noises says nothing.
    """
    own = asr_self - asr_zero
    return 100 * (asr_at - asr_zero) / own if own >= least else math.nan


def axes(
    backdoor: Callable,
    family: Callable,
    *,
    target: int,
    classnames: Sequence[str],
    classes: Sequence[int],
    tasks: Sequence[str],
    seed: int,
    count: int,
) -> dict[str, dict]:
    """The backdoors that are compared, at most ``count`` an axis: {axis: {name: backdoor}}.

    ``backdoor(target=)`` and ``backdoor(task=)`` give one, ``family(by, count)`` those that differ
    by place or seed, from ``seed`` on. ``classes`` are beside the attack's own ``target`` (named
    by ``classnames``); the first of ``tasks`` is the attack's own.
    """
    aims = list(dict.fromkeys([target, *classes]))[:count]
    return {
        "place": dict(zip(PLACES, family("place", count))),
        "seed": {f"seed {seed + i}": b for i, b in enumerate(family("seed", count))},
        "target class": {str(classnames[c]): backdoor(target=c) for c in aims},
        "task": {name: backdoor(task=name) for name in tasks[:count]},
    }


def matrix(
    axes: Mapping[str, Mapping],
    *,
    clean: Callable[[str], Model],
    task: TaskOf,
    drift: TaskVector,
    seed: int = 0,
    scale: float = 1.0,
    more: Mapping[str, Vectors] | None = None,
) -> pd.DataFrame:
    """:func:`transfer` of every backdoor on an axis onto every other: the rows of ``axes`` {axis:
    {name: backdoor}}.

    ``clean`` and ``task`` give the clean fine-tune and the task of a task's name. The placebos
    beside them (:data:`PLACEBOS`) are ``drift``, the difference of two clean models, and noise
    drawn by ``seed``, both with the norm of the attack's own vector; ``more`` are other vectors by
    axis. Adds the columns axis, attack, placebo, itself.
    """
    tables = []
    for axis, members in axes.items():
        for name, a in members.items():
            vectors = {n: b.vector for n, b in members.items()} | dict((more or {}).get(axis, {}))
            fake = (drift * (a.vector.norm() / drift.norm()), a.vector.random_like(seed))
            vectors |= dict(zip(PLACEBOS, fake))
            found = transfer(clean(a.task), a, vectors, task(a.goal_task), scale)
            tables.append(found.assign(axis=axis, attack=name))
    table = pd.concat(tables, ignore_index=True)
    placebo, itself = table["vector"].isin(PLACEBOS), table["vector"] == table["attack"]
    return table.assign(placebo=placebo, itself=itself)


def transfer(
    clean: Model, attack, vectors: Vectors, task: Task, scale: float = 1.0
) -> pd.DataFrame:
    """Backdoor transfer onto one attack: what other vectors do to the attack's own trigger.

    ``attack`` has ``vector``, ``trigger``, ``target`` and ``theta``. For every vector V: ASR (%)
    of the attack's trigger on θ_clean + s·V (addition) and on θ_backdoored − s·V (subtraction),
    each also :func:`normalised` by what the attack's own vector does.
    """
    backdoored = Model(clean.encoder, attack.theta)
    zero, full = (hit(model, attack, task).percent for model in (clean, backdoored))

    def moved(vector: TaskVector) -> tuple[float, float]:
        both = clean + scale * vector, backdoored - scale * vector
        return tuple(hit(model, attack, task).percent for model in both)

    rows, (own_added, own_removed) = [], moved(attack.vector)
    for name, vector in vectors.items():
        added, removed = moved(vector)
        gain = normalised(added, zero, own_added)
        loss = normalised(full - removed, 0.0, full - own_removed)
        rows.append((name, attack.vector.cosine(vector), added, gain, removed, loss))
    columns = ["vector", "cosine", "asr_added", "added", "asr_removed", "removed"]
    return pd.DataFrame(rows, columns=columns)


def once(axes: Mapping[str, Mapping]) -> dict[str, TaskVector]:
    """The vectors of all axes, "<axis>: <name>", each once: the first of every axis is the run's
    own."""
    first = next(iter(axes))
    return {
        f"{axis}: {name}": backdoor.vector
        for axis, members in axes.items()
        for name, backdoor in list(members.items())[axis != first :]
    }


def cosines(vectors: Vectors) -> pd.DataFrame:
    """Matrix of cosine similarities, labelled by name."""
    table = pd.DataFrame(np.eye(len(vectors)), index=list(vectors), columns=list(vectors))
    for a, b in itertools.combinations(vectors, 2):
        table.loc[a, b] = table.loc[b, a] = vectors[a].cosine(vectors[b])
    return table


def cross(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`matrix` in which a vector meets another attack that moves ASR enough."""
    return table[~table["itself"]].dropna(subset=["added"])


def rank_correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of cosine with transfer, for all pairs and within two groups.

    ``table`` is that of :func:`matrix`; placebos, and vectors on their own attack, are left out.
    All pairs together, cosine may only tell attacks that share a target from those that do not:
    hence the groups.
    """
    pairs = cross(table[~table["placebo"]])
    near = pairs["axis"].isin(NEAR)
    groups = {
        "all": pairs,
        "one target (place, seed)": pairs[near],
        "different targets (class, task)": pairs[~near],
    }
    rows = []
    for name, part in groups.items():
        ranks = part[["cosine", "added", "removed"]].corr("spearman")["cosine"]
        rows.append((name, len(part), ranks["added"], ranks["removed"]))
    return pd.DataFrame(rows, columns=["vectors", "pairs", "added", "removed"])


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Number, mean, lowest and highest transfer over the pairs of different backdoors of each axis,
    and over all placebos: (added or removed, count/mean/min/max) by axis.

    ``table`` is that of :func:`matrix`; the vector with a θ_clean of its own is left out.
    """
    pairs = table[~table["itself"] & (table["vector"] != OWN_TWIN)]
    across = pairs["axis"].mask(pairs["placebo"], "placebos").rename("across")
    parts = pairs[["added", "removed"]].groupby(across, sort=False)
    return parts.agg(["count", "mean", "min", "max"])


def orders(values: Percents, prefix: str) -> dict[str, float]:
    """By how many points the mean transfer across place and seed exceeds that across class and
    task, as "<prefix>_place_minus_class" and so on: the paper's order holds where all are above 0.
    nan for an axis without pairs."""
    return {
        f"{prefix}_{near}_minus_{short}": values.get(near, math.nan) - values.get(far, math.nan)
        for near in NEAR
        for short, far in FAR.items()
    }
