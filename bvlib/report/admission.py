"""Is a base fit for the study? Asked of clean quantities and the base's own sensitivity only,
never of an attack.

Measured on a development seed (100 or more) and on dev images, so that nothing reported later has
had a say. What was admitted is then frozen: a hash of world, tasks, training and trigger goes into
the card of the base, and
:func:`check_frozen` names whatever differs from it afterwards. All numbers are percent or points
unless said otherwise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bvlib.core.errors import BvError
from bvlib.core.registry import USED
from bvlib.core.versions import recipe as version_of
from bvlib.files.digests import canonical, digest
from bvlib.files.safe import write_json, write_whole
from bvlib.files.weights import card_of
from bvlib.report.criteria import CRITERIA, LAMBDA, MAX_SIZE
from bvlib.run import settings
from bvlib.run.notebooks import root_folder, runs_folder, shown

FROZEN = (
    "world",
    "world_seed",
    "sizes",
    "tasks",
    "adversary",
    "target_class",
    "other_classes",
    "train",
    "trigger",
    "trigger_size",
    "alpha",
    "coefficient",
    "merging",
)
TABLES = ("tasks", "heads", "cosines", "weakness", "criteria")


# Measuring


def measure(lab, say: Callable[[str], None] = print) -> dict[str, pd.DataFrame]:
    """The tables named in :data:`TABLES`, of a lab of a development seed; models and triggers come
    from its store."""
    from bvlib.core.vectors import TaskVector

    own = {}
    for name in lab.tasks:
        say(f"fine-tune of {name}")
        own[name] = lab.clean(name)
    vectors = {name: TaskVector.between(theta, lab.base, name) for name, theta in own.items()}
    merged = lab.merge(method="task_arithmetic", coefficient=LAMBDA)
    say("accuracy of base, fine-tunes and merges")
    tasks = _tasks(lab, own, vectors, merged)
    models = {
        "base": lab.base,
        "clean merge": merged,
        **{f"fine-tune of {name}": theta for name, theta in own.items()},
    }
    weakness = _weakness(lab, models, say)
    return {
        "tasks": tasks,
        "heads": _heads(lab),
        "cosines": _cosines(vectors),
        "weakness": weakness,
        "criteria": criteria(tasks, weakness),
    }


def _tasks(lab, own, vectors, merged) -> pd.DataFrame:
    from bvlib.study import experiments

    def dev(theta) -> pd.Series:
        return experiments.accuracies(lab.model(theta), lab.tasks, "dev")[list(lab.tasks)]

    alone = {
        n: experiments.accuracy(lab.model(own[n]), task, "dev").percent
        for n, task in lab.tasks.items()
    }
    table = pd.DataFrame(
        {
            "zero_shot": dev(lab.base),
            "fine_tuned": pd.Series(alone),
            "merged": dev(merged),
            "merged_ties": dev(lab.merge(method="ties")),
        }
    )
    table["gain"] = table["fine_tuned"] - table["zero_shot"]
    table["recovered"] = (
        100 * (table["merged"] - table["zero_shot"]) / table["gain"].where(table["gain"] >= 5)
    )
    table["norm"] = pd.Series({name: vector.norm() for name, vector in vectors.items()})
    table["times_median"] = table["norm"] / table["norm"].median()
    return table.rename_axis("task").reset_index()


def _heads(lab) -> pd.DataFrame:
    """How close the classes of each task's zero-shot head are."""
    rows = []
    for task in lab.tasks.values():
        cosines = lab.head(task) @ lab.head(task).T
        off = cosines[~cosines.new_ones(cosines.shape).tril().bool()]  # each pair once
        a, b = divmod(int(cosines.clone().fill_diagonal_(-1).argmax()), len(cosines))
        rows.append(
            {
                "task": task.name,
                "classes": len(cosines),
                "largest_cosine": float(off.max()),
                "between": f"{task.classnames[a]} / {task.classnames[b]}",
                "mean_cosine": float(off.mean()),
            }
        )
    return pd.DataFrame(rows)


def _cosines(vectors: Mapping[str, Any]) -> pd.DataFrame:
    from bvlib.study.transfer import cosines

    matrix, names = cosines(vectors), list(vectors)
    rows = [(a, b, matrix.loc[a, b]) for i, a in enumerate(names) for b in names[i + 1 :]]
    return pd.DataFrame(rows, columns=["a", "b", "cosine"])


def _weakness(lab, models: Mapping[str, Any], say) -> pd.DataFrame:
    """ASR of patches on models without any attack, on dev images of the adversary's task; size 0
    is no patch at all."""
    from bvlib.attacks import triggers
    from bvlib.core import metrics
    from bvlib.core.rng import derive

    plan, task = _plan(lab.p["profile"], lab.p), lab.adversary
    classes, rows = [task.check_class(c) for c in plan["classes"]], []

    def asr(theta, patch) -> dict[int, float]:
        predicted = lab.model(theta).predict(task, patch, "dev")
        return {
            c: metrics.attack_success_rate(predicted, task.dev.labels, c).percent for c in classes
        }

    def add(model, size, patch, values) -> None:
        rows.extend(
            {
                "model": model,
                "target": c,
                "class": task.classnames[c],
                "size": size,
                "patch": patch,
                "asr": values[c],
            }
            for c in classes
        )

    for name, theta in models.items():
        add(name, 0, "none", asr(theta, None))
    for size in plan["sizes"]:
        say(f"patches of {size} px")
        found = {c: lab.trigger("universal", target=c, size=size) for c in classes}
        noise = [
            triggers.random_patch(size, derive(lab.seed, "admission", i))
            for i in range(plan["random_patches"])
        ]
        for name, theta in models.items():
            add(name, size, "universal", {c: asr(theta, found[c])[c] for c in classes})
            add(name, size, "random", pd.DataFrame([asr(theta, patch) for patch in noise]).mean())
            add(name, size, "white", asr(theta, triggers.solid(size)))
    return pd.DataFrame(rows)


def criteria(tasks: pd.DataFrame, weakness: pd.DataFrame) -> pd.DataFrame:
    """What was asked and what came out: id, criterion, obtained, bound, met (blank where there is
    no bound).

    ``tasks`` needs the columns zero_shot, merged, gain, recovered, times_median; ``weakness``
    model, target, size, patch, asr. The patch is judged at the size, 6 px at most, that works for
    most classes (the larger of equals).
    """
    base = weakness[(weakness["model"] == "base") & (weakness["size"] > 0)]
    universal, noise = (
        base[base["patch"] == kind].pivot(index="size", columns="target", values="asr")
        for kind in ("universal", "random")
    )
    works = (universal >= 50).sum(axis=1)
    most, gap = universal.shape[1] // 2 + 1, tasks["gain"].sum()
    size = max((s for s in works.index if s <= MAX_SIZE), key=lambda s: (works[s], s), default=None)
    obtained = {
        "gain": ((tasks["gain"] >= 15).sum(), len(tasks) // 2 + 1),
        "recovered": (
            100 * (tasks["merged"] - tasks["zero_shot"]).sum() / gap if gap > 0 else math.nan,
            50,
        ),
        "recovered_mean": (tasks["recovered"].mean(), None),
        "norms": (tasks["times_median"].max(), 2),
        "weakness": (works[size] if size else math.nan, most),
        "random": (noise.loc[size].mean() if size else math.nan, 5),
        "smallest_size": (
            min((s for s in works.index if works[s] >= most), default=math.nan),
            None,
        ),
    }
    rows = []
    for name, (value, bound) in obtained.items():
        text, least = CRITERIA[name]
        met = None if least is None else bool(value >= bound if least else value <= bound)
        where = (
            f" [{size} px, {universal.shape[1]} classes]"
            if name in ("weakness", "random") and size
            else ""
        )
        rows.append(
            {
                "id": name,
                "criterion": text + where,
                "obtained": float(value),
                "bound": bound,
                "met": met,
            }
        )
    return pd.DataFrame(rows)


# Writing


def write(
    profile: str,
    base: str | None = None,
    seed: int | None = None,
    folder: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Measure a profile's base (or another) into ``folder/<profile>/`` and return the page, made
    new from all profiles there.

    The folder is :func:`home` if not given; profile smoke has no page, its own folder is returned.
    BvError for a reporting seed and for a profile without the key ``admission``.
    """
    seed = _plan(profile)["seed"] if seed is None else seed
    if seed < 100:
        raise BvError(
            f"admission is for development seeds (100 or more), not {seed}: 0 to 99 are for "
            "reporting"
        )
    import matplotlib.pyplot as plt

    from bvlib.report.admission_page import BEGIN, END, criteria_table, draw, page
    from bvlib.report.overview import replace_between
    from bvlib.run.lab import Lab
    from bvlib.study import figures

    folder = Path(folder or home(profile, base, seed))
    out = folder / profile
    lab = Lab(
        "00_setup_and_tasks", {"profile": profile, "seed": seed, "base": base, "out": str(out)}
    )
    tables = measure(lab, say)
    card = _provenance(lab)
    for name in TABLES:
        write_whole(
            out / f"{name}.csv",
            lambda draft, t=tables[name]: t.to_csv(draft, index=False, float_format="%.6g"),
        )
    fig = draw(tables["weakness"], lab.adversary.name, f"{lab.encoder.name} base on {profile}")
    figures.save(fig, out / "weakness", tables["weakness"], card)
    plt.close(fig)
    obtained = {
        row.id: row.obtained if math.isfinite(row.obtained) else None
        for row in tables["criteria"].itertuples()
    }
    write_json(
        out / "admission.json",
        {
            **card,
            "profile": profile,
            "seed": seed,
            "base_name": lab.encoder.name,
            "adversary": lab.adversary.name,
            "recipe": recipe(profile),
            "criteria": obtained,
        },
    )
    say(tables["criteria"].drop(columns="id").round(2).to_string(index=False, na_rep=""))
    if profile == "smoke":
        return out
    write_whole(
        folder / "README.md", lambda draft: draft.write_text(page(folder), encoding="utf-8")
    )
    if folder == home(profile):
        replace_between(root_folder() / "README.md", BEGIN, END, criteria_table(folder))
    return folder / "README.md"


def home(profile: str, base: str | None = None, seed: int | None = None) -> Path:
    """Where admissions lie: `figures/admission`; under `runs/` what is not to be committed (smoke,
    another base or seed)."""
    own = base in (None, settings.load(profile)["base"]) and seed in (None, _plan(profile)["seed"])
    return (
        root_folder() / "figures" / "admission"
        if own and profile != "smoke"
        else runs_folder() / "admission"
    )


def _plan(profile: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    given = given or settings.load(profile)
    if "admission" not in given:
        raise BvError(
            f"profile {profile} has no key `admission`: give it seed, classes, sizes, "
            "random_patches"
        )
    return given["admission"]


def _provenance(lab) -> dict[str, Any]:
    """The lab's provenance, with this module as the source and without a path of the base."""
    kept = {
        key: value
        for key, value in lab._provenance("").items()
        if key not in ("notebook", "caption")
    }
    return {
        **kept,
        "parameters": {**kept["parameters"], "base": lab.encoder.name},
        "recipes": sorted({*USED, version_of("admission")}),
        "command": f"bv admit --profile {lab.p['profile']}",
        "hash": _hash(recipe(lab.p["profile"]), lab.encoder.card["sha256"]),
    }


# Freezing


def recipe(profile: str) -> dict[str, Any]:
    """What is frozen of a profile, and the recipe that draws the toy world ("world:toy/1")."""
    content = settings.load(profile)
    return {**{key: content[key] for key in FROZEN}, "drawn by": version_of("world:toy")}


def freeze(profile: str, folder: Path | None = None, say: Callable[[str], None] = print) -> str:
    """Write recipe, base, digests of the tasks' images and what the admission gave into the card of
    the profile's base; returns the hash that names all this.

    BvError unless the admission was measured on that base with today's recipe.
    """
    path, mend = (
        Path(folder or home(profile)) / profile / "admission.json",
        f"run `bv admit --profile {profile}` first",
    )
    if not path.is_file():
        raise BvError(f"profile {profile} was not admitted yet: {mend}")
    found = json.loads(path.read_text(encoding="utf-8"))
    card_path, card = _card(profile)
    if found["base"] != card["sha256"]:
        raise BvError(f"{shown(path)} was measured on another base than {card_path.stem}: {mend}")
    if changed := _changed(found["recipe"], recipe(profile)):
        raise BvError(f"{shown(path)} was measured with another {', '.join(changed)}: {mend}")
    kept = {
        "hash": _hash(recipe(profile), card["sha256"]),
        "base": card["sha256"],
        "data": found["data"],
        "seed": found["seed"],
        "criteria": found["criteria"],
        "recipe": found["recipe"],
    }
    write_json(card_path, {**card, "frozen": {**card.get("frozen", {}), profile: kept}})
    say(f"froze profile {profile} in {card_path.name}: {kept['hash']}")
    return kept["hash"]


def check_frozen(profile: str, data: Mapping[str, str] | None = None) -> str | None:
    """One line that says what differs from what was frozen, or None when nothing does.

    ``data``: digests of the tasks' images ({task: 16 hex digits}), where they are at hand.
    """
    path, card = _card(profile)
    frozen = card.get("frozen", {}).get(profile)
    if frozen is None:
        return (
            f"profile {profile} is not frozen in {path.name}: run `bv admit --profile "
            f"{profile} --freeze`"
        )
    changed = _changed(frozen["recipe"], recipe(profile))
    changed += [] if frozen["base"] == card["sha256"] else ["base (its weights)"]
    changed += [f"images of {t}" for t, found in (data or {}).items() if frozen["data"][t] != found]
    if not changed:
        return None
    return f"profile {profile} differs from what was frozen in {path.name}: {', '.join(changed)}"


def _hash(frozen: Mapping[str, Any], base: str) -> str:
    return digest([dict(frozen), base])[:16]


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [
        key for key in sorted({*old, *new}) if canonical(old.get(key)) != canonical(new.get(key))
    ]


def _card(profile: str) -> tuple[Path, dict[str, Any]]:
    """Path and content of the card of a profile's base. BvError when there is none."""
    from bvlib.worlds import bases

    name = settings.load(profile)["base"]
    path = card_of(
        Path(name) if name.endswith(".safetensors") else bases.WEIGHTS / f"{name}.safetensors"
    )
    if not path.is_file():
        raise BvError(
            f"base {name!r} of profile {profile} has no card {path.name}: make it with `bv "
            "pretrain`"
        )
    return path, json.loads(path.read_text(encoding="utf-8"))
