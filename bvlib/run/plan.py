"""What runs cost before they are begun: a table of counts times speeds measured on this device.

plan.yaml has what each notebook makes and evaluates, counted once in finished runs of mini, in
trainings, triggers and passes over a test split. The profile says how long these are, :func:`probe`
times their steps. What notebooks share counts where it is needed first.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import pandas as pd
import torch
import yaml

from bvlib.attacks import objectives, triggers
from bvlib.core import training
from bvlib.core.encoder import BATCH, default_device, peak_memory
from bvlib.core.errors import BvError, unknown
from bvlib.run import settings
from bvlib.run.notebooks import available, find
from bvlib.worlds import bases, clip, images, tasks
from bvlib.worlds.papers import table as papers

COUNTS = Path(__file__).with_name("plan.yaml")
PRESETS: dict[
    str, dict[str, Any]
] = {  # memory in GB; with hours, notebooks from the first on that these suffice for
    "evening": {"base": "ViT-B-32", "memory": 8.0, "hours": 4.0},
    "six-tasks": {"notebooks": ("01", "06")},
    "everything": {"all": True, "seeds": (0, 1, 2)},
}
UNCERTAIN = """Uncertain: counts are those of profile mini, seed 0; what is neither training nor
trigger (other) is scaled as if it were, and may hold more memory: Neural Cleanse (07) grows with
the classes, so it may take several times as long. Every attack is timed as feature interpolation.
Merging itself, plots, downloads, preparing data and reading images from disk are not in it."""


class Probe(NamedTuple):
    """Seconds of each sort of step and of an image, bytes of an image tower, of a step; images."""

    speeds: dict[str, float]
    theta: int
    peak: float
    few: int


def sizes(p: Mapping[str, Any]) -> tuple[float, float]:
    """Test images of a task and steps of a training, means over the tasks; needs no data."""
    rows: Any = papers.ROWS if p["world"] == "paper" else images.DATASETS
    there = {tasks.HANDWRITTEN: 497, **{name: row.test for name, row in rows.items()}}
    test, steps = p["sizes"]["test"] or math.inf, []
    for name in p["tasks"]:
        train = int(pd.Series(rows[name].train).max()) if p["world"] == "paper" else 0
        train -= rows[name].drawn_dev(train) if train else 0  # pyright: ignore[reportAttributeAccessIssue]
        steps.append(papers.steps(name, train, p["train"]))
    return mean(min(test, there.get(name, test)) for name in p["tasks"]), mean(steps)


def one_more(run: Callable[[int], Any], within: float) -> float:
    """Seconds of one repetition more of the n that ``run(n)`` makes, beyond what the first takes.

    After a warm-up, over as many as there is time for in ``within`` seconds.
    """

    def took(n: int) -> float:
        began = time.perf_counter()
        run(n)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began

    took(1)
    first = took(1)
    n = max(1, int(within / first))
    return max(took(1 + n) - first, 1e-9) / n


def probe(p: Mapping[str, Any], within: float = 60.0) -> Probe:
    """What this device does with the profile's encoder, in about ``within`` seconds.

    On images of noise, a real CLIP with random weights. Where a whole batch takes too long, time
    and memory of a smaller one are scaled up. BvError for an unknown base.
    """
    real = "pretrained" in p and not p["base"].endswith(".safetensors")
    encoder = clip.build(p["base"], None) if real else bases.load(p["base"])
    base, vit, whole, pull = encoder.theta, encoder.model.visual, p["train"]["batch"], p["trigger"]
    side = vit.image_size if isinstance(vit.image_size, int) else vit.image_size[0]
    chunk = p["train"].get("chunk") or math.inf
    noise = torch.randint(256, (BATCH, side, side, 3), dtype=torch.uint8)
    head = torch.nn.functional.normalize(torch.randn(10, vit.output_dim), dim=-1)
    head, labels = head.to(encoder.device), torch.arange(whole) % 10

    def train(objective: Any, n: int) -> None:
        how = {**p["train"], "steps": n, "batch": few}
        training.finetune(encoder, base, head, noise[:few], labels[:few], objective, **how)

    def trigger(n: int) -> None:
        how = {**pull, "steps": n, "batch": min(few, pull["batch"]), "size": p["trigger_size"]}
        triggers.toward_class(encoder, base, head, noise, 1, **how)

    def seen(n: int) -> None:
        for _ in range(n):
            encoder.predict(base, noise[: min(3 * few, BATCH)], head)

    both = objectives.feature_interpolation(triggers.solid(p["trigger_size"]), 1)
    few, peaks, took = 1, [], 0.0
    while few < whole and (took < within / 30 or few < 4):  # two sizes at least: memory grows
        few = min(2 * few, whole)
        took = one_more(lambda n: train(both, n), 0)
        peaks.append((min(1.5 * few, chunk), peak_memory()))  # half as many have the trigger
    runs = {
        "clean": (lambda n: train(training.clean(), n), whole / few),
        "backdoored": (lambda n: train(both, n), whole / few),
        "trigger": (trigger, pull["batch"] / min(few, pull["batch"])),
        "image": (seen, 1 / min(3 * few, BATCH)),
    }
    speeds = {unit: one_more(run, within / 5) * times for unit, (run, times) in runs.items()}
    (least, low), (most, peak) = peaks[0], peaks[-1]
    if few < whole and most > least:
        peak += (max(min(1.5 * whole, chunk), pull["batch"]) - most) * (peak - low) / (most - least)
    return Probe(speeds, sum(v.nbytes for v in base.values()), max(peak, peak_memory()), few)


def estimate(names: Sequence[str], p: Mapping[str, Any], found: Probe) -> pd.DataFrame:
    """The plan of one seed, a row a notebook: numbers, hours on this device, GB = 1e9 bytes.

    Memory is a step's, and at most that with all models that the notebook uses held beside it.
    """
    table, done, rows = yaml.safe_load(COUNTS.read_text(encoding="utf-8")), set(), {}
    test, steps = sizes(p)
    cost = {"clean": steps, "backdoored": steps, "trigger": p["trigger"]["steps"], "image": test}
    cost = {unit: n * found.speeds[unit] for unit, n in cost.items()}
    for name in names:
        if name not in table["uses"]:
            raise BvError(f"no counts for {name}: run it, then benchmarks/plan.py --count FOLDER")
        things = {(kind, n) for kind, ns in table["uses"][name].items() for n in ns}
        parts = ([Counter(table["worth"][kind]) for kind, _ in s] for s in (things - done, things))
        new, used = (sum(part, Counter()) for part in parts)
        new["image"] += table["passes"][name]
        made = Counter(kind.removeprefix("off-").partition("@")[0] for kind, _ in things - done)
        done |= things
        rows[name] = {
            **{kind: made.pop(kind, 0) for kind in ("clean", "backdoored", "trigger")},
            "other": made.total(),
            "images": round(new["image"] * test),
            "hours": sum(new[unit] * seconds for unit, seconds in cost.items()) / 3600,
            "disk (GB)": new["models"] * found.theta / 1e9,
            "memory (GB)": found.peak / 1e9,
            "at most": (found.peak + (used["held"] + len(p["tasks"])) * found.theta) / 1e9,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def plan(
    profile: str,
    notebooks: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    preset: str | None = None,
    base: str | None = None,
    card: float | None = None,
    within: float = 60.0,
) -> str:
    """What `bv plan` prints; what is given wins over the preset's. ``card`` in GB, ``within`` in s.

    BvError for an unknown profile, notebook, preset or base, and without memory for a step.
    """
    if preset and preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    usual, p = PRESETS.get(preset or "", {}), settings.load(profile)
    p["base"] = base or (usual.get("base") if p["world"] == "paper" else None) or p["base"]
    memory: float = card or usual.get("memory", math.inf)
    runs: Sequence[int] = seeds or usual.get("seeds", (0,))
    chosen = notebooks or (available() if "all" in usual else usual.get("notebooks"))
    names = [each.name for each in find(chosen)]
    try:
        found = probe(p, within)
    except torch.OutOfMemoryError:
        raise BvError(f"{p['base']} does not fit this device: lower train.chunk") from None
    table = estimate(names, p, found)
    table.iloc[:, :7] *= len(runs)
    if not notebooks:
        table = table[table["hours"].cumsum() <= usual.get("hours", math.inf)].copy()
    if table.empty:
        raise BvError(f"{usual['hours']:g} hours are too few here: name notebooks")
    left = [name for name in names if name not in table.index]
    table.loc["total"] = [*table.iloc[:, :7].sum(), *table.iloc[:, 7:].max()]
    if memory < math.inf:
        table["fits"] = "perhaps"
        table.loc[table["at most"] <= memory, "fits"] = "yes"
        table.loc[table["memory (GB)"] > memory, "fits"] = "no"
    speeds = ", ".join(f"{unit} {value:.3g}" for unit, value in found.speeds.items())
    said = ", ".join(map(str, runs))
    return f"""profile {profile}: base {p["base"]}, {len(p["tasks"])} tasks, seeds {said}
{table.to_string(float_format="%.2f")}
{f"left out, as {usual['hours']:g} hours are too few: {', '.join(left)}" if left else ""}
hours: of this device ({default_device()}); seconds of a step, an image: {speeds}
(steps of {found.few} of {p["train"]["batch"]} images were timed)
disk: {found.theta / 1e9:.3f} GB a model; memory: that of a step, at most with all models beside it

{UNCERTAIN}"""
