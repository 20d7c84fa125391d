"""What notebook 00 asks of a world before anybody attacks: its heads, its task vectors, its clean
merge."""

from collections.abc import Mapping, Sequence

import pandas as pd
import torch

from bvlib.study import experiments
from bvlib.study.experiments import Models, Tasks, Vectors


def base_facts(card: Mapping, name: str, profile: str, criteria: Mapping[str, str]) -> pd.DataFrame:
    """The base and what its admission found, from its card: columns what, value (text).

    ``criteria`` says in words what each of the admission's numbers is.
    """
    admitted = card.get("frozen", {}).get(profile, {})
    facts = {
        "base": card.get("name", name),
        "trained on": card.get("data", "not said"),
        "frozen for this profile": admitted.get("hash", "no"),
    }
    found = admitted.get("criteria", {})
    facts |= {f"admission: {criteria[key]}": value for key, value in found.items()}
    text = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in facts.values()]
    return pd.DataFrame({"what": list(facts), "value": text})


def described(tasks: Tasks, target: int) -> pd.DataFrame:
    """One row a task: classes, images of each split, the prompt of a class, the licence."""
    rows = []
    for task in tasks.values():
        name = task.classnames[target % len(task.classnames)]
        sizes = {split: len(getattr(task, split)) for split in ("train", "dev", "test")}
        row = {"task": task.name, "classes": len(task.classnames), **sizes}
        rows.append({**row, "prompt": task.prompts[0].format(name), "licence": task.licence})
    return pd.DataFrame(rows)


def closest_classes(head: torch.Tensor, classnames: Sequence[str]) -> dict[str, float | str]:
    """The two classes of a head (K, D; unit rows) with the largest cosine, and the mean over all
    pairs."""
    off = (head @ head.T).fill_diagonal_(-1)
    a, b = divmod(int(off.argmax()), len(head))
    return {
        "largest cosine": float(off.max()),
        "between": f"{classnames[a]} / {classnames[b]}",
        "mean cosine": float((off.sum() + len(head)) / (len(head) * (len(head) - 1))),
    }


def accuracies(models: Models, own: Models, tasks: Tasks) -> pd.DataFrame:
    """Clean accuracy (%) on test images: a row a task and "mean", a column a model; the last
    column, own, is each task's own model."""
    rows = {name: experiments.accuracies(model, tasks) for name, model in models.items()}
    alone = pd.Series({n: experiments.accuracy(own[n], task).percent for n, task in tasks.items()})
    rows["own"] = pd.concat([alone, pd.Series({"mean": alone.mean()})])
    return pd.DataFrame(rows).rename_axis("task")


GAIN, RECOVERED = "gain of fine-tuning (points)", "recovered by task arithmetic (%)"


def gap_recovered(accuracy: pd.DataFrame, least: float = 5.0) -> pd.DataFrame:
    """How much of the gap between base and own models the merge by task arithmetic recovers.

    From a table of :func:`accuracies`: 100 (merged − base) / (own − base), blank where fine-tuning
    gained less than ``least`` points, as the quotient would be noise.
    """
    gap = accuracy["own"] - accuracy["base"]
    kept = accuracy["task_arithmetic"] - accuracy["base"]
    return pd.DataFrame({GAIN: gap, RECOVERED: 100 * kept / gap.where(gap >= least)})


def gap_measures(gap: pd.DataFrame) -> dict[str, float]:
    """What the claims are checked on: the share recovered, a mean over tasks (not of the row
    "mean"), and the gain."""
    recovered = gap[RECOVERED].drop("mean").mean()
    return {"gap_recovered": recovered, "fine_tuning_gain": gap.loc["mean", GAIN]}


def norms(vectors: Vectors) -> pd.DataFrame:
    """L2 norms of task vectors, and how many times their median each is."""
    table = pd.DataFrame({"task": list(vectors), "norm": [v.norm() for v in vectors.values()]})
    table["times the median"] = table["norm"] / table["norm"].median()
    return table
