"""BadMerging one knob at a time, and the defences it was tested against: Neural Cleanse,
Fine-Pruning, Scale-Up."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch

from bvlib.attacks.recipes import Backdoor
from bvlib.core.encoder import Encoder, Model
from bvlib.defences import Part, detectors, pruning
from bvlib.defences.ibvs import choose_scale
from bvlib.study import experiments
from bvlib.worlds.tasks import Task


def turned(
    knob: str,
    value: Any,
    attacked: Model,
    clean: Model,
    backdoor: Backdoor,
    *,
    goal: Task,
    adversary: Task,
) -> dict[str, Any]:
    """One knob at one value: ASR of the attacked and of the clean merge with the same trigger, and
    clean accuracy on the adversary's task, in percent.

    With several backdoors in one model (``pairs``) the ASR is their mean.
    """
    pairs = backdoor.pairs or ((backdoor.trigger, backdoor.target),)
    found = {"knob": knob, "value": value, "attack": backdoor.attack}
    for column, model in (("ASR", attacked), ("ASR, clean merge", clean)):
        rates = [experiments.asr(model, goal, t, c).percent for t, c in pairs]
        found[column] = sum(rates) / len(rates)
    return found | {"accuracy, adversary": experiments.accuracy(attacked, adversary).percent}


def judged(found: pd.DataFrame, target: int, classnames: Sequence[str]) -> dict[str, Any]:
    """What Neural Cleanse says of a model, from its table of labels (one row a class).

    The anomaly index, whether it flags the model (above 2), the class that stands out most, the
    norm of the attacked class beside the median (pixels), how many classes a patch was found for
    (99 % of the images and more), and for how many the search had converged: an index of norms
    that still fall says little.
    """
    index, mine = detectors.anomaly_index(found["norm"]), found.set_index("class").loc[target]
    return {
        "anomaly index": index,
        "flagged": index > detectors.FLAGGED_ABOVE,
        "class that stands out": classnames[int(found["class"][found["deviation"].idxmax()])],
        "norm of the target (px)": mine["norm"],
        "median norm (px)": found["norm"].median(),
        "deviation of the target": mine["deviation"],
        "classes reached": int((found["rate"] >= 99).sum()),
        "classes converged": int(found.get("converged", found["rate"] >= 99).sum()),
    }


def by_detector(of: str, judge: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    """The table that ``judge(name)`` gives of every registered detector ``of`` "model" or "image",
    with a column that names the detector where there are several."""
    names = [name for name, each in detectors.detector.items() if each.more.get("of") == of]
    found = {name: judge(name) for name in names}
    if len(found) == 1:
        return found[names[0]]
    return pd.concat([table.assign(detector=name) for name, table in found.items()])


def of_detector(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of one detector in a table of :func:`by_detector`."""
    return table[table["detector"] == name] if "detector" in table else table


def fine_pruned(
    model: Model,
    encoder: Encoder,
    parts: Mapping[str, Part],
    accuracy: Callable[[Model], float],
    shares: Sequence[float],
    *,
    blocks: int = 2,
    steps: int = 60,
    lr: float = 1e-4,
    budget: float = 4.0,
    seed: int = 0,
) -> tuple[float, dict[str, Model]]:
    """Fine-Pruning and each half of it: the share of hidden units that is pruned, and the models.

    The share is the largest of ``shares`` (0 to 1, 0 among them) that costs at most ``budget``
    points of ``accuracy(model)`` on dev, in percent. ``encoder`` is the base's, whose last
    ``blocks`` MLPs are pruned; ``parts`` are clean labelled dev images of every task.
    """
    images = torch.cat([images for images, _, _ in parts.values()])
    active = pruning.activity(encoder, model.theta, images, blocks)
    dev = {s: accuracy(pruning.prune(model, active, s)) for s in shares}
    share = choose_scale(dev.__getitem__, shares, budget)
    how = {"seed": seed, "steps": steps, "lr": lr}
    return share, {
        "nothing": model,
        "prune": pruning.prune(model, active, share),
        "tune": pruning.tune(model, parts, **how),
        "prune and tune": pruning.tune(model, parts, pruned=active, share=share, **how),
    }


def told_apart(
    name: str, model: Model, task: Task, triggers: Mapping[str, Any], target: int, count: int = 300
) -> dict[str, float]:
    """AUROC, 0 to 1, of a detector of images telling those with each trigger from the clean ones:
    the first ``count`` test images of other classes than the target."""
    encoder, images = model.sight(task.name), task.test.images[task.test.labels != target][:count]
    head, detector = encoder.head(task.classnames, task.prompts), detectors.detector[name]
    look = partial(detector, encoder, model.theta, head, images)
    clean, pasted = look(None), {shown: look(trigger) for shown, trigger in triggers.items()}
    auroc = detectors.scale_up_auroc
    return {f"AUROC, {shown}": auroc(clean, scores) for shown, scores in pasted.items()}


def comparisons(ablations: pd.DataFrame, attack: str, copies: int) -> dict[str, float]:
    """What claims about the knobs are checked on, from rows of :func:`turned`: ASR in percent, or
    points between two values of a knob.

    ``copies`` is how many models of one task are averaged.
    """
    at = ablations.set_index(["knob", "value"])["ASR"]
    knows, many = at["what the adversary knows"], at["backdoors in one model"]
    same = ablations[ablations["knob"] == "models of one task, averaged"]
    same = same[same["value"] == copies].set_index("attack")["ASR"]
    return {
        "fewest_asr_over_tasks": at["merged tasks"].min(),
        "asr_drop_many_backdoors": many.iloc[0] - many.iloc[-1],
        "informed_gain": knows["the other models"] - knows["nothing"],
        "same_task_asr": same[attack],
        "same_task_badnets_asr": same["badnets"],
    }
