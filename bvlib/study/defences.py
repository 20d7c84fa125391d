"""Defences compared: IBVS under every merging algorithm, in variants, and beside every other
defence that is registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from bvlib.attacks.recipes import Backdoor
from bvlib.core import metrics
from bvlib.core.encoder import Model
from bvlib.core.vectors import TaskVector
from bvlib.defences import Situation, defence
from bvlib.defences.ibvs import defended, ibvs
from bvlib.study import experiments
from bvlib.worlds.tasks import Task


def hit(model: Model, backdoor: Backdoor, goal: Task) -> metrics.Rate:
    """ASR of a backdoor on the test images of its goal."""
    return experiments.asr(model, goal, backdoor.trigger, backdoor.target)


def mean_accuracy(model: Model, tasks: Mapping[str, Task], split: str = "test") -> float:
    """Clean accuracy in percent, averaged over tasks."""
    return experiments.accuracies(model, tasks, split)["mean"]


def guarded(
    model: Model,
    apply: Callable[[float], Model],
    backdoor: Backdoor,
    *,
    goal: Task,
    tasks: Mapping[str, Task],
    scales: Sequence[float],
    budget: float,
    before: tuple[float, float] | None = None,
) -> dict[str, float]:
    """One defence of one model, ``apply(scale)`` at the strength that clean dev accuracy picks: ASR
    before and after (percent), its drop and the clean cost on test (points).

    ``before`` are ASR and clean accuracy of ``model`` where they are known already.
    """
    asr, accuracy = before or (
        hit(model, backdoor, goal).percent,
        mean_accuracy(model, tasks),
    )
    scale, safe = defended(apply, lambda m: mean_accuracy(m, tasks, "dev"), scales, budget)
    after = hit(safe, backdoor, goal)
    return {
        "scale": scale,
        "ASR before": asr,
        "ASR": after.percent,
        "low": after.low,
        "high": after.high,
        "ASR drop": asr - after.percent,
        "clean cost": accuracy - mean_accuracy(safe, tasks),
    }


def subtracted(
    model: Model,
    clean: Model,
    vectors: Mapping[str, TaskVector],
    backdoor: Backdoor,
    *,
    goal: Task,
    tasks: Mapping[str, Task],
    **rule: Any,
) -> pd.DataFrame:
    """IBVS of several vectors on one attacked merge, a row a vector: :func:`guarded`, and the zero
    line (ASR of the clean merge by the same algorithm). ``rule`` are scales and budget."""
    before, zero = (
        (hit(model, backdoor, goal).percent, mean_accuracy(model, tasks)),
        hit(clean, backdoor, goal).percent,
    )
    rows = []
    for name, v in vectors.items():
        how = {"goal": goal, "tasks": tasks, "before": before, **rule}
        found = guarded(model, lambda s, v=v: ibvs(model, v, s), backdoor, **how)
        cost = found.pop("clean cost")
        rows.append({"defender": name, **found, "zero line": zero, "clean cost": cost})
    return pd.DataFrame(rows)


def rivals(
    situations: Mapping[str, Situation],
    *,
    tasks: Mapping[str, Task],
    goals: Mapping[str, Task],
    zero: Mapping[str, float],
    settings: Mapping[str, Any],
    sample: int,
) -> pd.DataFrame:
    """Every registered defence against every attack {attack: situation}, and none.

    ASR and clean accuracy on test in percent, drop and clean cost in points. A defence that needs
    many passes an image is measured on the first ``sample`` test images of each task, beside the
    undefended merge on the same ones. ``goals`` are the tasks whose images each attack flips,
    ``zero`` its ASR on the clean merge, ``settings`` the defences' parameters by name.
    """
    rows = []
    for name, situation in situations.items():
        merged, attack = situation.merged, situation.given("attack")
        usual = (goals[name], tasks)
        few = (goals[name].few(sample), {n: t.few(sample) for n, t in tasks.items()})
        before = {
            each: (hit(merged, attack, goal).percent, mean_accuracy(merged, on))
            for each, (goal, on) in (("one", usual), ("many", few))
        }
        for method in (None, *defence.values()):
            passes = "one" if method is None else method.more.get("passes", "one")
            (goal, on), (asr, accuracy) = few if passes == "many" else usual, before[passes]
            safe = method(situation, **method.settings(settings)) if method else merged
            after, kept = hit(safe, attack, goal), mean_accuracy(safe, on)
            rows.append(
                {
                    "attack": name,
                    "defence": method.label if method else "none",
                    "must know": method.needs if method else "nothing",
                    "ASR": after.percent,
                    "low": after.low,
                    "high": after.high,
                    "ASR drop": asr - after.percent,
                    "zero line": zero[name],
                    "accuracy": kept,
                    "clean cost": accuracy - kept,
                    "images": after.count,
                }
            )
    return pd.DataFrame(rows)


def relative_drop(drop: pd.Series, before: pd.Series, least: float = 10.0) -> pd.Series:
    """ASR drop in percent of the ASR before, blank where that was under ``least`` percent."""
    return 100 * drop / before.where(before >= least)


def comparisons(
    by_merging: pd.DataFrame, variants: pd.DataFrame, beside: pd.DataFrame, attack: str
) -> dict[str, float]:
    """What claims about IBVS beyond task arithmetic are checked on: percent for the relative drop,
    points for the others.

    From the tables of :func:`subtracted` by merging algorithm, of the variants (:func:`guarded`)
    and of :func:`rivals`.
    """
    ours = by_merging[by_merging["defender"] == defence["ibvs"].label]
    fake = by_merging[by_merging["defender"] == defence["placebo"].label]
    knows = variants[variants["question"] == "the attacker is"].set_index("value")["ASR"]
    drop = beside.set_index(["attack", "defence"])["ASR drop"][attack]
    return {
        "ibvs_best_relative_drop": relative_drop(ours["ASR drop"], ours["ASR before"]).max(),
        "ibvs_mean_drop": ours["ASR drop"].mean(),
        "ibvs_minus_placebo_everywhere": ours["ASR drop"].mean() - fake["ASR drop"].mean(),
        "ibvs_worst_cost": ours["clean cost"].max(),
        "ibvs_lost_to_aware": knows["aware, own guess"] - knows["unaware"],
        "ibvs_minus_tuning": drop[defence["ibvs"].label] - drop[defence["fine-tuning"].label],
    }
