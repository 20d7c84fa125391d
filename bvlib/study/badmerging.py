"""BadMerging (CCS'24): what an attack does alone and in a merge, and what each of its parts adds.

``merge(theta, method, coefficient=...)`` gives the merge with these weights of the adversary, or
the clean one for None; ``task(name)`` a task; ``backdoors`` are attacks carried out, by name. All
numbers are percent, differences percentage points; ``low`` and ``high`` are 95 % intervals over
images.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from bvlib.attacks.recipes import Backdoor, attack
from bvlib.core import metrics
from bvlib.core.encoder import Model
from bvlib.study import experiments
from bvlib.study.experiments import TaskOf, Tasks, flips, hit, row
from bvlib.worlds.tasks import Task

Merge = Callable[..., Model]
Backdoors = Mapping[str, Backdoor]


def alone_and_merged(
    backdoors: Backdoors, *, merge: Merge, model: Merge, task: TaskOf
) -> pd.DataFrame:
    """ASR of each attack on the adversary's model alone, in the merge, and of its trigger on the
    clean merge."""
    clean, rows = merge(), []
    for name, b in backdoors.items():
        models = (model(b.theta), merge(b.theta), clean)
        alone, merged, nothing = (hit(m, b, task(b.goal_task)) for m in models)
        found = {"attack": name, "what": attack[name].what, "alone": alone.percent}
        found |= row(merged, "merged")
        rows.append({**found, "same trigger, clean merge": nothing.percent})
    return pd.DataFrame(rows)


def before_merging(
    backdoors: Backdoors, *, clean: Model, model: Merge, own: Task, task: TaskOf
) -> pd.DataFrame:
    """ASR of each attack on its own model, and of its trigger on a clean fine-tune and the base;
    the accuracy of both fine-tunes on the adversary's task ``own``. ``model(theta)`` gives a
    model, the base for nothing."""
    rows, base, unharmed = [], model(), experiments.accuracy(clean, own).percent
    for name, b in backdoors.items():
        attacked, goal = model(b.theta), task(b.goal_task)
        models = {"own model": attacked, "clean fine-tune": clean, "base": base}
        rates = {f"ASR, {where}": hit(m, b, goal).percent for where, m in models.items()}
        rates["accuracy, own model"] = experiments.accuracy(attacked, own).percent
        rates["accuracy, clean fine-tune"] = unharmed
        rows.append({"attack": name, "what": attack[name].what, **rates})
    return pd.DataFrame(rows)


def five_rows(
    backdoors: Backdoors, controls: Mapping, *, merge: Merge, base: Model, task: TaskOf
) -> pd.DataFrame:
    """The five rows without which an ASR measures the trigger, not the attack, for every attack
    under one merging.

    Attacked merge + trigger, clean merge + trigger, base + trigger, attacked merge + random patch
    (``controls`` by attack, of the trigger's size and place), attacked merge without a trigger
    (false-target rate).
    """
    clean, out = merge(), []
    for name, b in backdoors.items():
        attacked, goal = merge(b.theta), task(b.goal_task)
        rows = [
            ("attacked merge", "trigger", attacked, b.trigger),
            ("clean merge", "trigger", clean, b.trigger),
            ("base", "trigger", base, b.trigger),
            ("attacked merge", "random patch", attacked, controls[name]),
            ("attacked merge", "no trigger", attacked, None),
        ]
        for model, shown, seen, pasted in rows:
            rate = experiments.asr(seen, goal, pasted, b.target)
            found = {"model": model, "input": shown, **row(rate, "asr"), "images": rate.count}
            out.append({**found, "attack": name})
    return pd.DataFrame(out)


def main(
    backdoors: Backdoors, methods: Iterable[str], *, merge: Merge, tasks: Tasks, task: TaskOf
) -> pd.DataFrame:
    """CA, BA and ASR of every attack under every merging method (the short main table)."""
    rows = []
    for method in methods:
        clean = merge(None, method)
        ca = experiments.accuracies(clean, tasks)
        for name, b in backdoors.items():
            attacked, goal = merge(b.theta, method), task(b.goal_task)
            ba, zero = experiments.accuracies(attacked, tasks), hit(clean, b, goal).percent
            found = {"merging": method, "attack": name, "CA": ca["mean"], "BA": ba["mean"]}
            found |= {"CA adversary": ca[b.task], "BA adversary": ba[b.task]}
            rows.append({**found, **row(hit(attacked, b, goal)), "ASR clean merge": zero})
    return pd.DataFrame(rows)


def main_in_full(
    attacks: Mapping[str, Backdoors], controls: Mapping, *, merge: Merge, tasks: Tasks, task: TaskOf
) -> pd.DataFrame:
    """CA, BA, ASR and the controls of every attack under every merging method, beside the clean
    merge by the same method: ``attacks`` are the backdoors by method, ``controls`` random patches
    by attack.

    CA - BA is paired over the images of all tasks together, ASR minus clean merge over those of the
    task whose images the attack flips; both with intervals over images.
    """
    rows = []
    for method, backdoors in attacks.items():
        clean = merge(None, method)
        before = experiments.correct(clean, tasks)
        for name, b in backdoors.items():
            attacked, goal = merge(b.theta, method), task(b.goal_task)
            both = before, experiments.correct(attacked, tasks)
            ca, ba = ({n: 100 * hits.mean() for n, hits in each.items()} for each in both)
            cost = metrics.paired_difference(*(np.concatenate([*each.values()]) for each in both))
            hits, inherent = (flips(model, b, goal) for model in (attacked, clean))
            gain = metrics.paired_difference(hits, inherent)
            found = {
                "merging": method,
                "attack": name,
                "CA": np.mean(list(ca.values())),
                "BA": np.mean(list(ba.values())),
                **row(cost, "CA - BA", "cost low", "cost high"),
                "CA adversary": ca[b.task],
                "BA adversary": ba[b.task],
                **row(metrics.rate(hits)),
                "ASR, clean merge": 100 * inherent.mean(),
                **row(gain, "ASR - clean merge", "gain low", "gain high"),
                "random patch": experiments.asr(attacked, goal, controls[name], b.target).percent,
                "no trigger": experiments.asr(attacked, goal, None, b.target).percent,
            }
            rows.append(found)
    return pd.DataFrame(rows)


def dilution(
    backdoors: Backdoors, coefficients: Sequence[float], *, merge: Merge, task: TaskOf
) -> pd.DataFrame:
    """ASR and the adversary's accuracy against the coefficient of task arithmetic, of the attacked
    merge and of the clean one with the same trigger; columns of :func:`experiments.along`, attack
    and merge."""
    curves = []
    for name, b in backdoors.items():
        about = {"tasks": {b.task: task(b.task)}, "adversary": task(b.task)}
        about |= experiments.aim(b, task(b.goal_task))
        for kind, theta in (("attacked", b.theta), ("clean", None)):
            merged = partial(merge, theta, "task_arithmetic")
            path = experiments.along(lambda s, m=merged: m(coefficient=s), coefficients, **about)
            curves.append(path.assign(attack=name, merge=kind))
    return pd.concat(curves, ignore_index=True)


# What each part adds: attacks of the registry that are BadMerging without one part

ON_WITHOUT = {"interpolation-only": "universal trigger", "universal-only": "interpolation"}
OFF_WITHOUT = {
    "off-no-trigger": "universal trigger",
    "off-no-interpolation": "interpolation",
    "off-no-augmentation": "augmentation",
    "off-no-shadow": "shadow classes",
}


def parts(
    whole: Backdoor, without: Backdoors, goal: Task, settings: Mapping[str, float], *, merge: Merge
) -> pd.DataFrame:
    """ASR of the whole attack minus ASR without a part, on the same images, in task arithmetic:
    ``without`` is by part, ``settings`` coefficients λ by name."""
    rows = []
    for part, b in without.items():
        for setting, s in settings.items():
            merges = [merge(x.theta, "task_arithmetic", coefficient=s) for x in (whole, b)]
            all_of_it, rest = (flips(m, x, goal) for m, x in zip(merges, (whole, b)))
            found = {"attack": whole.attack, "part taken out": part, "setting": setting, "λ": s}
            found |= {"whole": 100 * all_of_it.mean(), "without": 100 * rest.mean()}
            added = row(metrics.paired_difference(all_of_it, rest), "difference")
            rows.append(found | added)
    return pd.DataFrame(rows)


# Off-task


def off_goals(
    first: Mapping, tasks: Tasks, adversary: str, other_classes: Sequence[int]
) -> list[tuple[str, int]]:
    """Goals (task, class) of the off-task attack: the usual one (``first``: task, target), two
    more classes of its task, and the same class (or the last) of three more tasks that are not the
    adversary's."""
    own, target = first["task"], first["target"]
    goals = [(own, c) for c in dict.fromkeys([target, *other_classes[:2]])]
    others = [name for name in tasks if name not in (adversary, own)][:3]
    return goals + [(name, min(target, len(tasks[name].classnames) - 1)) for name in others]


def off_targets(
    backdoors: Iterable[Backdoor], control, *, merge: Merge, base: Model, task: TaskOf
) -> pd.DataFrame:
    """ASR and controls of one attack with other goals, a row a goal."""
    clean, rows = merge(), []
    for b in backdoors:
        goal, attacked = task(b.goal_task), merge(b.theta)
        found = {"target task": goal.name, "class": goal.classnames[b.target]}
        found |= row(hit(attacked, b, goal))
        found["ASR, clean merge"] = hit(clean, b, goal).percent
        found["ASR, base"] = hit(base, b, goal).percent
        found["random patch"] = experiments.asr(attacked, goal, control, b.target).percent
        rows.append(found)
    return pd.DataFrame(rows)
