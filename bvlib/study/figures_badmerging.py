"""The figures of notebooks 00, 01 and 06: each from the table that is saved beside it."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from bvlib.study import figures
from bvlib.study.experiments import Tasks, matrix
from bvlib.study.figures import ROLES, colours
from bvlib.worlds.tasks import Task


def first_images(tasks: Sequence[Task], count: int = 12) -> pd.DataFrame:
    """The first test images of each task: columns task, test_index."""
    rows = [(t.name, i) for t in tasks for i in range(min(count, len(t.test)))]
    return pd.DataFrame(rows, columns=["task", "test_index"])


def contact_sheet(task: Task, count: int = 8, classes: int = 50) -> Figure:
    """``count`` training images of each class of a task (of the first ``classes``), a class a row,
    beside its first prompt."""
    names = task.classnames[:classes]
    fig, axes = figures.grid(1, len(names), width=7.0, height=0.62)
    for label, (name, ax) in enumerate(zip(names, np.ravel(axes), strict=True)):
        shown = task.train.images[task.train.labels == label][:count]
        if len(shown):
            ax.imshow(np.concatenate([*shown.numpy()], axis=1), aspect="equal")
        said = textwrap.shorten(task.prompts[0].format(name), 40)
        ax.set_title(said, loc="left", fontsize=8, pad=2)
        ax.axis("off")
    return fig


def examples(table: pd.DataFrame, tasks: Tasks) -> Figure:
    """The test images of a table of :func:`first_images` with their class names, a row a task."""
    picked = [(tasks[name], i) for name, i in zip(table["task"], table["test_index"])]
    images = [task.test.images[i].numpy() for task, i in picked]
    names = [task.classnames[task.test.labels[i]] for task, i in picked]
    return figures.pictures(images, names, columns=12, side=0.8)


def accuracies(table: pd.DataFrame, title: str) -> Figure:
    """Bars of a table of :func:`study.tasks.accuracies`: a group a task, a bar a model."""
    fig, (ax,) = figures.grid(1, width=7.2, height=2.8)
    table = table.set_index(table.columns[0])
    colour = [ROLES.get(n, "#4f86c6") for n in table]
    table.plot.bar(ax=ax, color=colour, width=0.8, rot=0, legend=False)
    figures.percent(ax, "clean accuracy (%)", title=title)
    figures.legend(fig)
    return fig


def triggers(table: pd.DataFrame, kinds: Mapping, examples: torch.Tensor) -> Figure:
    """Images (N, 3, H, W) with each kind of trigger pasted, a row a kind of column ``row``."""
    pasted = torch.cat([kinds[name].paste(examples).cpu() for name in table["row"]])
    look = {"columns": len(examples), "names": list(table["row"])}
    return figures.pictures(pasted.permute(0, 2, 3, 1), **look)


def five_rows(table: pd.DataFrame, sizes: Mapping[str, int]) -> Figure:
    """The attacked merge and its four controls, a panel an attack; ``sizes`` in pixels of its
    trigger."""
    roles = ["attack", "clean", "base", "random", "nothing"]
    fig, axes, attacks = figures.panels(table, "attack", width=4.2, height=2.4, sharey=True)
    for ax, (name, rows) in zip(axes, attacks):
        labelled = rows.assign(label=rows["model"] + " + " + rows["input"])
        figures.bars(ax, labelled, "asr", "label", roles)
        ax.set(xlabel="ASR (%)", title=f"{name}, {sizes[name]} px")
    return fig


def dilution(table: pd.DataFrame, chosen: str) -> Figure:
    """ASR against the coefficient: attacked merges, dotted the clean merge with the same
    trigger, once where two attacks have one trigger."""
    fig, (ax,) = figures.grid(1, width=6.4, height=3)
    clean = table[table["merge"] == "clean"].pivot(index="attack", columns="scale", values="asr")
    again = set(clean.reindex(table["attack"].unique())[lambda c: c.duplicated()].index)
    marker = dict(zip(table["attack"].unique(), itertools.cycle("os^Dv")))
    for (name, kind), part in table.groupby(["attack", "merge"], sort=False):
        role, ours = "attack" if name == chosen else "second", kind == "attacked"
        if not ours and name in again:
            continue
        line = {"ls": "-" if ours else ":", "band": ours, "marker": marker[name]}
        figures.curve(ax, part, "scale", "asr", role, f"{name}, {kind} merge", **line)
    x, title = "merging coefficient λ (task arithmetic)", "what merging does to a backdoor"
    figures.percent(ax, "ASR (%)", x, title)
    figures.legend(fig, at_lines=[ax])
    return fig


LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))


def by_coefficient(table: pd.DataFrame, chosen: str, default: float) -> Figure:
    """The same for many attacks: attacked merges on the left, the clean merge on the right; a
    dotted line at the default coefficient."""
    fig, axes = figures.grid(2, width=4.2, height=3)
    for ax, kind in zip(axes, ("attacked", "clean")):
        parts = table[table["merge"] == kind].groupby("attack", sort=False)
        for i, (name, part) in enumerate(parts):
            role, ls = ("attack", "-") if name == chosen else ("second", LINES[i % len(LINES)])
            look = {"ls": ls, "marker": "s" if name == chosen else "o"}
            figures.curve(ax, part, "scale", "asr", role, name, band=False, **look)
        ax.axvline(default, color="black", lw=0.7, ls=":")
        x = "merging coefficient λ (dotted: default)"
        figures.percent(ax, "ASR (%)", x, f"{kind} merge")
    figures.legend(fig)
    return fig


PANELS = {  # column: title, the end of its scale
    "ASR": ("ASR (%)", 100),
    "ASR, clean merge": ("same trigger, clean merge (%)", 100),
    "CA - BA": ("CA − BA (points)", 6),
}


def main_in_full(table: pd.DataFrame) -> Figure:
    """ASR, its zero line and the cost, for every attack and merge."""
    fig, axes = figures.grid(1, len(PANELS), width=6.4, height=3.0)
    for ax, (column, (title, top)) in zip(axes[:, 0], PANELS.items()):
        shown = matrix(table, "merging", "attack", column)
        figures.heatmap(ax, shown, title, fmt=".1f", reach=top)
    return fig


def parts(table: pd.DataFrame) -> Figure:
    """What each part adds, a panel a setting, with intervals."""
    fig, axes, settings = figures.panels(table, "setting", width=4.2, height=2.8)
    for ax, (setting, rows) in zip(axes, settings):
        rows = rows.iloc[::-1]
        short = rows["attack"].str.replace("badmerging-", "", regex=False)
        label, spread = short + ": " + rows["part taken out"], figures.interval(rows, "difference")
        roles = ["attack" if name == "badmerging-on" else "second" for name in rows["attack"]]
        ax.barh(label, rows["difference"], height=0.6, color=colours(*roles), **spread)
        ax.axvline(0, color="black", lw=0.8)
        title = f"{setting} setting: λ = {rows['λ'].iloc[0]}"
        ax.set(xlabel="ASR added by the part (points)", title=title)
    return fig


OFF_BARS = {  # column: legend, role
    "ASR": ("attacked merge", "attack"),
    "ASR, clean merge": ("clean merge, same trigger", "clean"),
    "ASR, base": ("base, same trigger", "base"),
    "random patch": ("attacked merge, random patch", "random"),
}


def off_targets(table: pd.DataFrame, method: str) -> Figure:
    """Off-task attacks by target task and class, with their controls."""
    fig, (ax,) = figures.grid(1, width=6.2, height=3)
    goals = table["target task"] + ": " + table["class"]
    labels, roles = zip(*OFF_BARS.values())
    shown = table[list(OFF_BARS)].set_axis(goals).set_axis(labels, axis=1)
    figures.grouped(ax, shown, roles, title=f"off-task attacks, {method}")
    figures.legend(fig, reverse=True)
    return fig
