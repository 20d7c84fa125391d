"""The page that `bv admit` writes, `figures/admission/README.md`, and its figure: admissions of
all profiles side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bvlib.files.safe import read_json
from bvlib.report.criteria import CRITERIA, LAMBDA, MAX_SIZE, TABLES, WEAK
from bvlib.report.paper_numbers import CLIP
from bvlib.report.tables import markdown

PAGE = """\
# Admission of the bases

Is a base fit for the study? Asked before any attack or defence, of clean models and patches only, \
on a development seed (100 or more) and dev images; the seeds below 100 and the test images have \
no say. Written by `bv admit`.

## Criteria

{criteria}
## All bases side by side

Mean over the tasks of dev accuracy (%): zero-shot, fine-tuned, merged (task arithmetic, \
λ = {LAMBDA}), and the share of the gap that the merge recovers. The time of a training step is \
in steps of the base of smoke.

{bases}

What is published for CLIP, on other tasks and images of 224 px, for orientation:

{published}

{sections}"""
SECTION = """\
## {card[base_name]} base on {card[profile]}

Seed {card[seed]}, dev images; base `{card[base]:.16}`, settings and base together `{card[hash]}`. \
Accuracy and the share of the gap recovered in %, gain in points; the merge is task arithmetic \
with λ = {LAMBDA}, beside it TIES with the profile's settings.

{tasks}

Recipes of fine-tuning, the profile's first: accuracy of the models on their own tasks, of the \
merge with λ = {LAMBDA}, and the median norm of a task vector.

{recipes}

Cosines between task vectors: {cosines[min]:.2f} to {cosines[max]:.2f}, mean {cosines[mean]:.2f}. \
Between the classes of each head:

{heads}

ASR (%) by side of the patch, mean over target classes of {card[adversary]} ({classes}). The \
universal patch is always the one optimised on the base; nobody attacked any of these models. \
Without a patch: {without}.

{mean}

On the base by target class, {size} px:

{each}

![ASR against the side of the patch]({name}/weakness.png)
"""


def page(folder: Path) -> str:
    """The page on all profiles measured in a folder (smoke left out), read back from their
    files."""
    published = [
        f"- {what}: {value:g} %, {source}" for of in CLIP.values() for what, value, source in of
    ]
    return PAGE.format(
        LAMBDA=LAMBDA,
        criteria=criteria_table(folder),
        bases=_bases(folder),
        published="\n".join(published),
        sections="\n".join(_section(*entry) for entry in _read(folder)),
    )


def criteria_table(folder: Path) -> str:
    """Every criterion, its bound, and what each admitted base and CLIP have."""
    columns = {
        f"{card['base_name']} base on {card['profile']}": tables["criteria"].set_index("id")
        for name, card, tables in _read(folder)
    }
    what, value, _ = CLIP["weakness"][0]
    published = {"weakness": f"ASR {value:g} % ({what})"}
    rows = []
    for key, (text, least) in CRITERIA.items():
        outcomes = [_outcome(table.loc[key], least) for table in columns.values()]
        rows.append([text, *outcomes, published.get(key, "not published")])
    titles = ["criterion", *columns, "CLIP ViT-B/32, published"]
    return "\n".join([*markdown(titles, rows), ""])


def _bases(folder: Path) -> str:
    """What came out on clean quantities for each base, and how it was made."""
    rows = []
    for _, found, tables in _read(folder):
        accuracy = tables["tasks"][["zero_shot", "fine_tuned", "merged"]].mean()
        obtained = tables["criteria"].set_index("id")["obtained"]
        row = {
            "base": found["base_name"],
            "on": found["profile"],
            **accuracy.rename(lambda name: name.replace("_", "-")),
            "recovered": obtained["recovered"],
            "step": f"{obtained['cost']:.2f}",
            **found["made"],
        }
        rows.append(row)
    return _table(pd.DataFrame(rows))


def made(card: Mapping[str, Any]) -> dict[str, Any]:
    """Tower and training of a base, as its card tells: columns of the table of all bases."""
    tower, recipe = card["model"].get("vision_cfg", {}), card.get("recipe", {})
    seen = recipe.get("images") or recipe.get("steps", 0) * recipe.get("batch", 0)
    return {
        "width × layers": f"{tower.get('width')} × {tower.get('layers')}",
        "patch, px": str(tower.get("patch_size")),
        "starts from": card.get("start", {}).get("name", "nothing"),
        "images seen, million": seen / 1e6 if seen else None,
        "trained on": card.get("device", "CPU"),
        "hours": card["seconds"] / 3600 if "seconds" in card else None,
    }


def _read(folder: Path) -> list[tuple[str, dict[str, Any], dict[str, pd.DataFrame]]]:
    found = []
    for path in sorted(Path(folder).glob("*/admission.json")):
        if not path.parent.name.startswith("smoke"):
            tables = {name: pd.read_csv(path.with_name(f"{name}.csv")) for name in TABLES}
            found.append((path.parent.name, read_json(path), tables))
    return found


def _outcome(row: pd.Series, least: bool | None) -> str:
    value = "none" if pd.isna(row["obtained"]) else f"{row['obtained']:.3g}"
    if least is None:
        return value
    size = row["criterion"].partition("[")[2].rstrip("]")
    asked = f"{'≥' if least else '≤'} {row['bound']:g}{'; ' + size if size else ''}"
    return f"{value} ({asked}): {'met' if row['met'] in (True, 'True') else '**not met**'}"


def _section(name: str, card: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> str:
    tasks, recipes, weakness = (tables[name] for name in ("tasks", "recipes", "weakness"))
    exact = {column: tasks[column].map("{:.2f}".format) for column in ("norm", "times_median")}
    said = {"lr": recipes["lr"].map("{:g}".format), "norm": recipes["norm"].map("{:.2f}".format)}
    single = weakness["model"].isin(["base", "clean merge", f"fine-tune of {card['adversary']}"])
    named = weakness["model"].where(single, "fine-tunes of other tasks, mean")
    mean = weakness.assign(model=named).pivot_table(
        index=["model", "patch"], columns="size", values="asr", sort=False
    )
    blind = mean[0].dropna().droplevel("patch")
    mean = mean.drop(columns=0).drop(index="none", level="patch").rename(columns="{} px".format)
    rows = weakness[(weakness["model"] == "base") & (weakness["size"] > 0)]
    size = max([s for s in rows["size"] if s <= MAX_SIZE] or [rows["size"].min()])
    each = rows[rows["size"] == size].pivot(index="class", columns="patch", values="asr")
    each = each.loc[rows["class"].unique(), ["universal", "random", "white"]]
    return SECTION.format(
        name=name,
        card=card,
        LAMBDA=LAMBDA,
        tasks=_table(tasks.assign(**exact)),
        recipes=_table(recipes.assign(**said)),
        cosines=tables["cosines"]["cosine"].agg(["min", "max", "mean"]),
        heads=_table(tables["heads"], 2),
        classes=", ".join(map(str, each.index)),
        without="; ".join(f"{model} {value:.1f}" for model, value in blind.items()),
        mean=_table(mean.reset_index()),
        size=size,
        each=_table(each.reset_index()),
    )


def _table(table: pd.DataFrame, digits: int = 1) -> str:
    def cell(value) -> str:
        if pd.isna(value):
            return ""
        return f"{value:.{digits}f}" if isinstance(value, float) else str(value)

    titles = [str(name).replace("_", " ") for name in table.columns]
    return "\n".join(markdown(titles, table.map(cell).to_numpy()))


def draw(weakness: pd.DataFrame, adversary: str, title: str):
    """The figure: ASR against patch size, on the base by class (left), on base, fine-tunes and
    clean merge (right)."""
    from bvlib.study import figures

    fig, (left, right) = figures.grid(2, width=4.2, height=3.2)
    patched = weakness[weakness["size"] > 0].groupby(["model", "patch", "size"], sort=False)
    mean = patched["asr"].mean().reset_index()

    def line(ax, model, patch, role, label, **how) -> None:
        part = mean[(mean["model"] == model) & (mean["patch"] == patch)]
        figures.curve(ax, part, "size", "asr", role, label, **how)

    each = weakness[(weakness["model"] == "base") & (weakness["patch"] == "universal")]
    thin = {"color": figures.ROLES["attack"], "lw": 0.7, "alpha": 0.6}
    for i, (_, part) in enumerate(each.groupby("target", sort=False)):
        label = "" if i else "universal, one class"
        left.plot(part["size"], part["asr"], label=label, **thin)
    line(left, "base", "universal", "attack", "universal, mean")
    line(left, "base", "random", "random", "random, mean")
    line(left, "base", "white", "placebo", "white, mean")
    left.axhline(WEAK, color="black", lw=0.8, ls=":")
    own = f"fine-tune of {adversary}"
    others = [m for m in mean["model"].unique() if m not in ("base", "clean merge", own)]
    for i, model in enumerate(others):
        label = "" if i else "fine-tunes of other tasks"
        line(right, model, "universal", "defended", label, alpha=0.35, marker="")
    line(right, own, "universal", "defended", own, ls="--")
    line(right, "base", "universal", "base", "base")
    line(right, "clean merge", "universal", "clean", "clean merge")
    for ax, what in ((left, title), (right, "universal patch, mean of classes")):
        figures.percent(ax, "ASR (%), dev images", "side of the patch (px)", what)
        ax.set_xticks(mean["size"].unique())
    figures.legend(fig)
    return fig
