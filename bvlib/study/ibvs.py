"""IBVS on test images: the path of a subtraction, the point that the rule picks on it, what it
costs, and what placebos of equal norm and the oracle do at the same price."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch

from bvlib.attacks.recipes import Backdoor
from bvlib.core.encoder import Model
from bvlib.core.vectors import TaskVector
from bvlib.defences.ibvs import choose_scale, ibvs
from bvlib.study import experiments, shown
from bvlib.study.experiments import Models, Percents, TaskOf, Tasks, Vectors
from bvlib.worlds.tasks import Task

MEAN, OTHER, SAME = "mean over classes", "another task", "attacker's class"
TWO_SEEDS, NOISE = "placebo (two clean seeds)", "placebo (noise)"
REVERSED = "placebo (two clean seeds, reversed)"
PLACEBOS = (TWO_SEEDS, REVERSED, NOISE)
ORACLE = "oracle (the attack's own BV)"
WORDS = {  # columns of a path, as a notebook shows them
    "scale": "λ",
    "asr": "ASR",
    "test_accuracy": "accuracy",
    "test_adversary": "accuracy, adversary's task",
}


def placebos(vector: TaskVector, drift: TaskVector, seed: int) -> dict[str, TaskVector]:
    """Placebos with the norm of a vector: ``drift``, the difference of two clean fine-tunes, in
    both directions, as neither is the right one, and noise drawn by ``seed``."""
    pushed = drift * (vector.norm() / drift.norm())
    return {TWO_SEEDS: pushed, REVERSED: -pushed, NOISE: vector.random_like(seed)}


def paths(
    attacks: Mapping[str, Backdoor],
    merges: Models,
    vectors: Mapping[str, Vectors],
    scales: Sequence[float],
    *,
    budget: float,
    tasks: Tasks,
    adversary: Task,
    goal: TaskOf,
) -> pd.DataFrame:
    """θ_merged − λ·V for every attack and every vector V that a defender subtracts (``vectors``:
    {attack: {defender: V}}): one row an attack, a defender and a λ.

    The columns of :func:`experiments.along` (accuracy on dev, ASR on test images of
    ``goal(task)``), and attack, defender; chosen: is it the λ that dev accuracy picks within
    ``budget`` points; test_accuracy and test_adversary at that λ, in percent; cost: dev accuracy
    lost, in points. λ = 0 is always among the scales.
    """
    out, on_dev = [], {"tasks": tasks, "adversary": adversary, "clean_split": "dev"}
    rest = sorted(s for s in scales if s != 0)
    for name, b in attacks.items():
        merged, about = merges[name], {**on_dev, **experiments.aim(b, goal(b.goal_task))}
        start = experiments.along(lambda s, m=merged: m, [0.0], **about)  # the same for every V
        for defender, v in vectors[name].items():
            moved = experiments.along(lambda s, m=merged, v=v: ibvs(m, v, s), rest, **about)
            table = pd.concat([start, moved], ignore_index=True)
            reached = dict(zip(table["scale"], table["accuracy"]))
            chosen = choose_scale(reached.__getitem__, list(reached), budget)
            test = experiments.accuracies(ibvs(merged, v, chosen), tasks)
            more = {"test_accuracy": test["mean"], "test_adversary": test[adversary.name]}
            table = table.assign(attack=name, chosen=table["scale"] == chosen, **more)
            out.append(table.assign(defender=defender))
    found = pd.concat(out, ignore_index=True)
    first = found.groupby(["attack", "defender"])["accuracy"].transform("first")
    return found.assign(cost=first - found["accuracy"])


def picked(
    paths: pd.DataFrame, start: Percents, accuracy: Percents, zero: Percents
) -> pd.DataFrame:
    """The rows of :func:`paths` that the rule picks, with what the defence gains and costs on test.

    ``start`` and ``accuracy`` are ASR and clean accuracy of each attack's undefended merge,
    ``zero`` the ASR of the clean merge with the same trigger, all in percent. Adds ASR drop and
    clean cost (both points, undefended minus defended) and the zero line.
    """
    table = paths[paths["chosen"]]
    drop = table["attack"].map(start) - table["asr"]
    cost = table["attack"].map(accuracy) - table["test_accuracy"]
    more = {"ASR drop": drop, "clean cost": cost, "zero line": table["attack"].map(zero)}
    return table.assign(**more)


def at_cost(paths: pd.DataFrame, points: Sequence[float] = (1, 3, 10)) -> pd.DataFrame:
    """The frontier of every vector in numbers: ASR (percent) left where it has cost so many points
    of dev accuracy, and at the longest λ tried."""
    parts = paths.groupby(["attack", "defender"], sort=False)
    last = {"longest λ": ("scale", "max"), "its cost": ("cost", "last"), "its ASR": ("asr", "last")}
    table = parts.agg(**last)
    for x in points:
        left = {key: experiments.reached(part["cost"], x, part["asr"]) for key, part in parts}
        table[f"ASR at {x:g} points"] = pd.Series(left)
    return table.reset_index()


def destinations(
    model: Model, task: Task, trigger, target: int, theirs: Sequence[int]
) -> dict[str, float]:
    """Where test images of other classes than the target go under a trigger, in percent: to the
    target, to their own class, to a class of ``theirs`` (the defender's), to another."""
    predicted, labels = model.predict(task, trigger), task.test.labels
    predicted, labels = predicted[labels != target], labels[labels != target]
    drawn = torch.isin(predicted, torch.tensor(list(theirs))) & (predicted != labels)
    parts = {"target": predicted == target, "own class": predicted == labels}
    parts["a class of the defender's"] = drawn
    shares = {what: 100 * float(part.float().mean()) for what, part in parts.items()}
    return {**shares, "another class": 100 - sum(shares.values())}


def summary(picked: pd.DataFrame, attacks: Sequence[str], own: Sequence[str]) -> pd.DataFrame:
    """IBVS, placebos and the oracle, a row each for every attack: asr, ASR drop, clean cost, each
    at the λ that the rule picks for it.

    "IBVS" is the mean over the ``own`` vectors (one a class that is not the attacker's); where
    they were not tried, the mean vector.
    """
    columns = ["asr", "ASR drop", "clean cost"]
    by = {n: part.set_index("attack")[columns] for n, part in picked.groupby("defender")}
    ours = picked[picked["defender"].isin(own)].groupby("attack")[columns].mean()
    rows = {
        "IBVS": ours.reindex(list(attacks)).fillna(by[MEAN]),
        "IBVS, mean vector": by[MEAN],
        "IBVS, another task": by[OTHER],
        **{name: by[name] for name in PLACEBOS},
        "oracle": by[ORACLE],
    }
    return pd.concat(rows, names=["defence", "attack"]).reset_index()


def what_is_left(summary: pd.DataFrame) -> pd.DataFrame:
    """What a notebook shows of :func:`summary`: a row a defence, a column an attack, in the cells
    the ASR that is left and, in brackets, the points of clean accuracy that it costs."""
    words = shown.in_words(summary)
    cells = words["asr"] + " (" + words["clean cost"] + ")"
    return shown.wide(words.assign(cells=cells), "defence", "attack", "cells")


def best_placebo(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`summary` of the placebo that takes off most, by attack."""
    table = summary[summary["defence"].isin(PLACEBOS)].sort_values("ASR drop", ascending=False)
    return table.drop_duplicates("attack").set_index("attack")


def comparisons(summary: pd.DataFrame, picked: pd.DataFrame, attack: str) -> dict[str, float]:
    """The numbers that the claims about IBVS are tested on, in points, by measure (claims.yaml says
    what each is).

    ``attack`` is the attack studied beside badnets, badmerging-off and the SBV.
    """
    at = summary.set_index(["defence", "attack"])
    drop, ours = at["ASR drop"], at["ASR drop"]["IBVS"]
    same = picked[picked["defender"] == SAME].set_index("attack")["ASR drop"]
    return {
        "ibvs_asr_drop_badnets": ours["badnets"],
        "ibvs_asr_drop_badmerging": ours[attack],
        "ibvs_asr_drop_off": ours["badmerging-off"],
        "ibvs_asr_drop_sbv": ours["sbv"],
        "ibvs_clean_cost": at["clean cost"]["IBVS", attack],
        "ibvs_minus_placebo_drop": ours[attack] - best_placebo(summary)["ASR drop"][attack],
        "oracle_asr_drop": drop["oracle", attack],
        "ibvs_class_matters": same[attack] - ours[attack],
        "ibvs_class_matters_badnets": same["badnets"] - ours["badnets"],
    }
