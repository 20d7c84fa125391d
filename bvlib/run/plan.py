"""What runs cost before they are begun: counts of work times speeds that are measured on this
device.

What a notebook does hardly depends on the profile: how many trainings, triggers and evaluations
follow from its cells and from the lengths of the profile's lists. So :mod:`bvlib.run.workload` has
counted them once in finished runs and states them in units of work under the planned profile,
:mod:`bvlib.run.probe` times the units, and :func:`estimate` multiplies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bvlib.attacks import recipes
from bvlib.core.errors import BvError, unknown
from bvlib.run import settings
from bvlib.run.notebooks import available, find
from bvlib.run.probe import Probe, probe
from bvlib.run.workload import ADAPTED, Tally, is_model, load, sizes, tally, training_steps
from bvlib.worlds import images
from bvlib.worlds.papers import data as papers_data
from bvlib.worlds.papers import table


@dataclass(frozen=True)
class Preset:
    """A choice made beforehand: ``notebooks`` None are the default ones; ``hours`` and ``memory``
    (GB) what there is."""

    what: str
    notebooks: Callable[[], Sequence[str] | None]
    seeds: tuple[int, ...]
    base: str | None = None
    memory: float | None = None
    hours: float | None = None


PRESETS = {
    "evening": Preset(
        "four hours on one 8 GB card: the default notebooks that fit, one seed",
        lambda: None,
        (0,),
        "ViT-B-32",
        8.0,
        4.0,
    ),
    "six-tasks": Preset(
        "the six-task tables: notebooks 01 and 06, one seed", lambda: ("01", "06"), (0,)
    ),
    "everything": Preset("all notebooks, three seeds", available, (0, 1, 2)),
}
DEFAULT = Preset("the default notebooks, one seed", lambda: None, (0,))


def preset_of(name: str | None) -> Preset:
    """The preset of a name, the usual choice for None. Raises BvError for an unknown one."""
    if name is not None and name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return DEFAULT if name is None else PRESETS[name]


# Counts times speeds


def seconds(part: Tally, speeds: Mapping[str, float]) -> float:
    """Seconds of one notebook's part for one seed."""
    return sum(amount * speeds[unit] for unit, amount in part.units.items())


def memory(part: Tally, p: Mapping[str, Any], found: Probe) -> tuple[float, float]:
    """Peak memory of a notebook in bytes, from to: what the probe held, and with every model the
    notebook uses held beside it.

    A backdoored model brings its BV, a merge the vectors of all tasks.
    """
    held = sum(
        times * (1 if kind == "clean" or kind in ADAPTED else 2)
        for kind, times in part.used.items()
        if is_model(kind)
    )
    least = max(found.peak, found.cleanse if part.used["cleanse"] else 0)
    return least, least + (held + len(p["tasks"])) * found.theta


def fitting(
    counts: Mapping[str, Any],
    notebooks: Sequence[str],
    p: Mapping[str, Any],
    speeds: Mapping[str, float],
    hours: float,
) -> list[str]:
    """Of the notebooks, in order, those that ``hours`` suffice for, each with what it needs of the
    others' artefacts."""
    chosen: list[str] = []
    for name in notebooks:
        if (
            sum(seconds(part, speeds) for part in tally(counts, [*chosen, name], p).values())
            <= 3600 * hours
        ):
            chosen.append(name)
    return chosen


def estimate(
    parts: Mapping[str, Tally],
    p: Mapping[str, Any],
    seeds: int,
    found: Probe,
    card: float | None = None,
) -> pd.DataFrame:
    """The plan, a row a notebook and one in total: numbers over all seeds, hours on this device,
    GB = 1e9 bytes.

    ``card``: memory in GB that there is; "fits" is then yes, perhaps (if the notebook lets go of
    models) or no.
    """
    rows = []
    for name, part in parts.items():
        models = sum(n for kind, n in part.new.items() if is_model(kind))
        backdoored = sum(n for kind, n in part.new.items() if kind in recipes.ATTACKS)
        patches = sum(
            n for kind, n in part.new.items() if kind.partition("@")[0] in recipes.OPTIMISED
        )
        other = part.new.total() - part.new["clean"] - backdoored - patches
        least, most = (value / 1e9 for value in memory(part, p, found))
        sums = {
            "clean trainings": part.new["clean"],
            "backdoored": backdoored,
            "triggers": patches,
            "adapted merges etc.": other,
            "images evaluated": part.units["image"],
            "hours": seconds(part, found.speeds) / 3600,
            "disk (GB)": models * found.theta / 1e9,
        }
        rows.append(
            {
                "notebook": name,
                **{what: seeds * n for what, n in sums.items()},
                "memory from (GB)": least,
                "to (GB)": most,
            }
        )
        if card is not None:
            rows[-1]["fits"] = "yes" if most <= card else "perhaps" if least <= card else "no"
    table = pd.DataFrame(rows)
    total = {
        "notebook": "total",
        **table[list(sums)].sum(),
        **table[["memory from (GB)", "to (GB)"]].max(),
    }
    if card is not None:
        total["fits"] = max(table["fits"], key=("yes", "perhaps", "no").index)
    whole = {
        what: int
        for what in (
            "clean trainings",
            "backdoored",
            "triggers",
            "adapted merges etc.",
            "images evaluated",
        )
    }
    return pd.concat([table, pd.DataFrame([total])], ignore_index=True).astype(whole)


def data(p: Mapping[str, Any], image_size: int) -> pd.DataFrame:
    """A row a dataset: images, GB once prepared, GB to download (nobody says), whether files come
    by hand, whether it is there.

    Empty for the toy world, which is drawn. ``image_size`` in pixels.
    """
    rows = []
    for name, one in sizes(p).items() if p["world"] != "toy" else ():
        paper, images = p["world"] == "paper", one["train"] + one["dev"] + one["test"]
        there = (
            papers_data.folder() / name / "card.json"
            if paper
            else images.data_folder() / f"{name}.npz"
        ).is_file()
        hand = paper and any(not file.url for file in table.row(name).files)
        rows.append(
            {
                "dataset": name,
                "images": images,
                "prepared (GB)": images * 3 * image_size**2 / 1e9,
                "download (GB)": "unknown",
                "by hand": "some files" if hand else "no",
                "prepared": "yes" if there else "no",
            }
        )
    return pd.DataFrame(rows)


# Saying it

UNCERTAIN = """Uncertain: speeds were taken in a short time, counts are those of profile {profile}, seed {seed}. Evaluations scale
with the mean size of a test split, also those on a fixed sample (too many). Every attack is timed as feature interpolation and
every merge as task arithmetic: TIES and spectral merges of large models take longer. What 07 and 09 train beside the store is
rough. Plots, downloads, preparing data and reading images from disk are not in it."""


def say(p: Mapping[str, Any], table: pd.DataFrame, found: Probe, seeds: Sequence[int]) -> str:
    """The plan as text."""
    total, there, theta = table.iloc[-1], data(p, found.image_size), found.theta / 1e9
    kind = "CPU" if found.device.startswith("CPU") else "GPU"
    scaled = {
        unit: f" (scaled from {n} of {whole} images)" for unit, (n, whole) in found.scaled.items()
    }
    least, most = total["memory from (GB)"], total["to (GB)"]
    lines = [
        f"profile {p['profile']}: base {p['base']}, {len(p['tasks'])} tasks, seeds "
        f"{', '.join(map(str, seeds))}, "
        f"{training_steps(p, sizes(p)):,.0f} steps a training, {p['trigger']['steps']:,} a trigger",
        table.to_string(index=False, float_format="{:.2f}".format),
        "",
        f"hours: {kind} hours of this device ({found.device}); seconds measured: "
        + ", ".join(
            f"{unit} {value:.3g}{scaled.get(unit, '')}" for unit, value in found.speeds.items()
        ),
        f"memory: {least:.1f} GB at the probe's peak, up to {most:.1f} GB if a notebook holds all "
        "its models at once",
        f"disk: {total['disk (GB)']:.2f} GB of models, {theta:.3f} GB each; {3 * theta:.2f} GB "
        "more while one trains",
    ]
    if "pretrained" in p:
        also = f", for 04 also {p['other_base']}" if p.get("other_base") else ""
        lines.append(
            f"encoder: {p['base']} {p['pretrained']!r}{also}, which open_clip downloads unless it "
            "has them, size "
            f"unknown ({found.parameters / 1e6:.0f} million weights are "
            f"{4 * found.parameters / 1e9:.2f} GB in fp32)"
        )
    if len(there):
        folder = papers_data.folder() if p["world"] == "paper" else images.data_folder()
        lines += [
            f"data: {(there['prepared'] == 'yes').sum()} of {len(there)} sets prepared in {folder}",
            there.to_string(index=False, float_format="{:.1f}".format),
        ]
    else:
        lines.append("data: nothing to download, the toy world is drawn")
    return "\n".join(lines)


def plan(
    profile: str,
    notebooks: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    preset: str | None = None,
    base: str | None = None,
    card: float | None = None,
    within: float = 60.0,
) -> str:
    """What ``bv plan`` prints; arguments that are given win over the preset's. ``card`` in GB,
    ``within`` in seconds.

    Raises BvError for an unknown profile, notebook, preset or base, without counts, or when
    nothing fits.
    """
    usual, p = preset_of(preset), {**settings.load(profile), "profile": profile}
    p["base"] = base or (usual.base if p["world"] == "paper" and usual.base else p["base"])
    card = usual.memory if card is None else card
    if card is not None and not card > 0:
        raise BvError(f"--memory wants GB above 0, got {card}")
    seeds, counts = seeds or usual.seeds, load()
    names = [n.name for n in find(notebooks or usual.notebooks())]
    found = probe(
        p, {unit for part in tally(counts, names, p).values() for unit in part.units}, within
    )
    kept, hours = names, usual.hours
    if hours and not notebooks:
        kept = fitting(counts, names, p, found.speeds, hours / len(seeds))
        if not kept:
            raise BvError(
                f"no notebook takes less than {hours:g} hours on this device: name some, or take "
                "another profile"
            )
    dropped = ", ".join(n for n in names if n not in kept)
    left = [f"Left out, as {hours:g} hours are not enough: {dropped}"] if dropped else []
    table = estimate(tally(counts, kept, p), p, len(seeds), found, card)
    return "\n\n".join([say(p, table, found, seeds), *left, UNCERTAIN.format(**counts)])
