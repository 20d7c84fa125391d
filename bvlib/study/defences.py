"""Defences compared: IBVS under every merging algorithm, in variants, and beside every other
defence that is registered."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from bvlib.attacks.recipes import Backdoor
from bvlib.core.encoder import Model
from bvlib.defences import Situation, defence
from bvlib.defences.ibvs import defended, ibvs
from bvlib.study.experiments import Percents, Tasks, Vectors, hit, mean_accuracy, row
from bvlib.worlds.tasks import Task


def undefended(model: Model, backdoor: Backdoor, goal: Task, tasks: Tasks) -> tuple[float, float]:
    """ASR on ``goal`` and mean clean accuracy of an undefended model, in percent."""
    return hit(model, backdoor, goal).percent, mean_accuracy(model, tasks)


def guarded(
    model: Model,
    apply: Callable[[float], Model],
    backdoor: Backdoor,
    *,
    goal: Task,
    tasks: Tasks,
    scales: Sequence[float],
    budget: float,
    before: tuple[float, float] | None = None,
) -> dict[str, float]:
    """One defence of one model, ``apply(scale)`` at the strength that clean dev accuracy picks: ASR
    before and after (percent), its drop and the clean cost on test (points).

    ``before`` are ASR and clean accuracy of ``model`` where they are known already.
    """
    asr, accuracy = before or undefended(model, backdoor, goal, tasks)
    scale, safe = defended(apply, lambda m: mean_accuracy(m, tasks, "dev"), scales, budget)
    after = hit(safe, backdoor, goal)
    gain = {"ASR drop": asr - after.percent, "clean cost": accuracy - mean_accuracy(safe, tasks)}
    return {"scale": scale, "ASR before": asr, **row(after), **gain}


def subtracted(
    model: Model,
    clean: Model,
    vectors: Vectors,
    backdoor: Backdoor,
    *,
    goal: Task,
    tasks: Tasks,
    **rule: Any,
) -> pd.DataFrame:
    """IBVS of several vectors on one attacked merge, a row a vector: :func:`guarded`, and the zero
    line (ASR of the clean merge by the same algorithm). ``rule`` are scales and budget."""
    rows, zero = [], hit(clean, backdoor, goal).percent
    how = {"goal": goal, "tasks": tasks, **rule}
    how["before"] = undefended(model, backdoor, goal, tasks)
    for name, v in vectors.items():
        found = guarded(model, lambda s, v=v: ibvs(model, v, s), backdoor, **how)
        cost = found.pop("clean cost")
        rows.append({"defender": name, **found, "zero line": zero, "clean cost": cost})
    return pd.DataFrame(rows)


def rivals(
    situations: Mapping[str, Situation],
    *,
    tasks: Tasks,
    goals: Tasks,
    zero: Percents,
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
        seen = {"one": usual, "many": few}  # by the passes that a defence needs
        start = {passes: undefended(merged, attack, *on) for passes, on in seen.items()}
        for method in (None, *defence.values()):
            passes = method.more.get("passes", "one") if method else "one"
            (goal, on), (asr, accuracy) = seen[passes], start[passes]
            safe = method(situation, **method.settings(settings)) if method else merged
            after, kept = hit(safe, attack, goal), mean_accuracy(safe, on)
            who = (method.label, method.needs) if method else ("none", "nothing")
            found = {"attack": name, "defence": who[0], "must know": who[1], **row(after)}
            found |= {"ASR drop": asr - after.percent, "zero line": zero[name], "accuracy": kept}
            rows.append({**found, "clean cost": accuracy - kept, "images": after.count})
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
