"""The figures of backdoor vectors, each drawn from the table that is saved beside it."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bvlib.study import figures
from bvlib.study.experiments import matrix
from bvlib.study.figures import ROLES, colours
from bvlib.study.sbv import ONE, PLACEBO, SPARSE
from bvlib.study.transfer import NEAR, rank_correlations


def scaling(table: pd.DataFrame, published: Mapping[str, Mapping], title: str) -> Figure:
    """Accuracy and ASR along θ_clean + λ_BV · v for each vector of a
    :func:`study.scaling.curves`; ``published``: {"accuracy" or "asr": {label: points (λ_BV, %)}},
    dotted, a marker for each model (what comes before the label's comma)."""
    fig, axes = figures.grid(2, width=3.8, height=2.8)
    looks = [("attack", "-", "o"), ("placebo", "-", "s"), ("placebo", ":", "s")]
    for ax, y, what in zip(axes, ("accuracy", "asr"), ("clean accuracy (%)", "ASR (%)")):
        for (name, part), (role, ls, marker) in zip(table.groupby("vector", sort=False), looks):
            figures.curve(ax, part, "scale", y, role, name, y == "asr", ls=ls, marker=marker)
        models = dict.fromkeys(label.partition(", ")[0] for label in published[y])
        for label, points in published[y].items():
            model = label.partition(", ")[0]
            look = {"ls": ":", "lw": 0.6, "marker": "x+12"[list(models).index(model)], "ms": 5}
            ax.plot(*zip(*points), label=f"{model} (published)", color=ROLES["base"], **look)
        figures.percent(ax, what, "λ_BV", title)
    figures.legend(fig, at_lines=axes[1:])
    return fig


def transfer(table: pd.DataFrame) -> Figure:
    """The matrices of :func:`study.transfer.matrix`, an axis a row: added left, removed
    right."""
    fig, panels, axes = figures.panels(table, "axis", 2, width=4.4, height=2.4)
    shown = {"added": "θ_clean + BV", "removed": "θ_backdoored − BV"}
    for line, (axis, part) in zip(panels, axes):
        for ax, (column, what) in zip(line, shown.items()):
            found = matrix(part, "attack", "vector", column)
            look = {"fmt": ".0f", "label": "% of own effect" if ax is line[-1] else ""}
            figures.heatmap(ax, found, f"{axis}: {what}", reach=150, **look)
            ax.set(ylabel="trigger of" if ax is line[0] else "")
    return fig


def cosine_transfer(table: pd.DataFrame) -> Figure:
    """Transfer over cosine, each vector on each other attack's trigger: pairs that share a target
    red, others orange; rank correlations without placebos. ``table`` has the rows of
    :func:`study.transfer.matrix` that are not a vector on its own attack."""
    fig, axes = figures.grid(2, width=4.0, height=3.2)
    ranks, fake = rank_correlations(table), table[table["placebo"]]
    for ax, by, what in zip(axes, ("added", "removed"), ("addition", "subtraction")):
        pairs = table[~table["placebo"]].groupby("axis", sort=False)
        for (axis, part), marker in zip(pairs, "os^D"):
            colour = ROLES["attack" if axis in NEAR else "second"]
            ax.plot(part["cosine"], part[by], marker, color=colour, ms=5, label=f"across {axis}")
        ax.plot(fake["cosine"], fake[by], "x", color=ROLES["placebo"], ms=4, label="placebos")
        x, y = "cosine with the attack's own BV", f"transfer by {what} (% of own effect)"
        ax.set(xlabel=x, ylabel=y, title=f"by {what}; rank correlation {ranks.loc[0, by]:.2f}")
    figures.legend(fig)
    return fig


def cosines(table: pd.DataFrame, what: str, width: float, height: float) -> Figure:
    """The matrix of :func:`study.transfer.cosines` between vectors that ``what`` tells, their names
    in its first column; width and height in inches."""
    fig, (ax,) = figures.grid(1, width=width, height=height)
    shown = table.set_index(table.columns[0]).rename_axis(None)
    figures.heatmap(ax, shown, f"cosine between {what}", label="cosine")
    return fig


def anatomy(table: pd.DataFrame) -> Figure:
    """Where a BV lives (:func:`study.anatomy.where`): by kind of weight and by block, beside the
    clean task vector."""
    fig, axes, ways = figures.panels(table, "by", width=4.2, height=2.8)
    said = {
        "share of entries (%)": "entries",
        "share of squared norm (%)": "squared norm of the BV",
        "the same, clean task vector (%)": "squared norm of the clean task vector",
    }
    ends = {"before": "", "after": "~"}  # what sorts before and after the blocks
    for ax, (by, part) in zip(axes, ways):
        shown = part.set_index("part").sort_index(key=lambda names: names.to_series().replace(ends))
        labelled, roles = shown[list(said)].rename(columns=said), ("nothing", "attack", "clean")
        figures.grouped(ax, labelled, roles, xlabel="share (%)", xlim=None, title=f"by {by}")
    figures.legend(fig, reverse=True)
    return fig


def sbv(table: pd.DataFrame) -> Figure:
    """Bars of :func:`study.sbv.compare`: ASR at the norm of one BV (left), as it is (right), with
    marks where one BV of that norm is."""
    fig, axes = figures.grid(2, width=4.4, height=3.6, sharey=True)
    names = table["vector"] + table["differ by"].map(lambda by: "" if by == "-" else f" ({by})")
    y, roles = range(len(table))[::-1], {ONE: "second", SPARSE: "second", PLACEBO: "placebo"}
    look = {"color": colours(*(roles.get(n, "attack") for n in table["vector"])), "height": 0.65}
    matched = figures.interval(table, "ASR norm-matched")
    axes[0].barh(y, table["ASR norm-matched"], **look, **matched)
    axes[0].set(yticks=list(y), yticklabels=names, title="at the norm of one BV")
    as_is = figures.interval(table, "ASR as it is", "low as it is", "high as it is")
    axes[1].barh(y, table["ASR as it is"], **look, **as_is)
    axes[1].set(title="as it is")
    for ax in axes:
        ax.axvline(table["zero line"].iloc[0], **figures.ZERO)
        ax.set(xlabel="merged ASR (%)", xlim=(0, 102))
    mark = {"color": "black", "ms": 9, "mew": 1.5, "label": "one BV scaled to the same norm"}
    axes[1].plot(table["ASR of one BV of that norm"], y, "|", **mark)
    figures.legend(fig)
    return fig


def frontier(table: pd.DataFrame, merged: str, task: str) -> Figure:
    """ASR over λ_BV, over BA, and over BA on the adversary's ``task``, for each vector;
    ``merged`` names the merge. A scale of BA spans five points at least, as less is noise."""
    looks = {
        "sign-consistent": ("attack", "-", "s"),
        ONE: ("second", "-", "o"),
        SPARSE: ("second", "--", "^"),
        PLACEBO: ("placebo", "-", "D"),
    }
    fig, axes = figures.grid(3, width=3.4, height=2.9)
    for name, (role, ls, marker) in looks.items():
        path = table[table["vector"] == name]
        for ax, x in zip(axes, ("scale", "accuracy", "adversary_accuracy")):
            figures.curve(ax, path, x, "asr", role, name, x == "scale", ls=ls, marker=marker)
    figures.percent(axes[0], "ASR (%)", "λ_BV (norm-matched)", merged)
    figures.percent(axes[1], "ASR (%)", "BA (%), mean over tasks", "frontier")
    figures.percent(axes[2], "ASR (%)", f"BA (%), {task}", "frontier on the adversary's task")
    for ax in axes[1:]:
        low, high = ax.get_xlim()
        ax.set_xlim(min(low, high - 5), high + 0.2)
    figures.legend(fig, at_lines=axes[:1])
    return fig


def sbv_grid(table: pd.DataFrame, one: float, zero: float) -> Figure:
    """ASR over the number of BVs for each density of :func:`study.sbv_grid.grid`, a row for each
    rule and a column for each way of differing; lines where one BV (``one``, %) and the clean merge
    (``zero``) are."""
    styles = {1.0: "-", 0.5: "--", 0.2: "-.", 0.05: ":"}
    rules, ways = table.loc[table["rule"] != ONE, "rule"].unique(), table["differ by"].unique()
    fig, axes = figures.grid(len(ways), len(rules), width=3.0, height=2.0, sharey=True)
    for line, rule in zip(np.reshape(axes, (len(rules), len(ways))), rules):
        for ax, by in zip(line, ways):
            part = table[table["differ by"] == by]
            for share, several in part[part["rule"] == rule].groupby("density", sort=False):
                start = part[(part["k"] == 1) & (part["density"] == share)]
                shown, ls = pd.concat([start, several]), styles.get(share, "-")
                figures.curve(ax, shown, "k", "ASR", "attack", f"density {share:.0%}", ls=ls)
            ax.axhline(one, color="black", lw=0.8, label="one BV")
            ax.axhline(zero, color=ROLES["clean"], lw=0.8, ls=":", label="clean merge")
            what = "number of merged BVs" if rule == rules[-1] else ""
            figures.percent(ax, "merged ASR (%)", what, f"{rule}, differ by {by}")
    figures.legend(fig)
    return fig


def sbv_everywhere(table: pd.DataFrame) -> Figure:
    """ASR of each vector of :func:`study.sbv_grid.everywhere` by merging algorithm, number of
    tasks and coefficient, with the clean merge."""
    looks = [
        ("second", "-", "o"),
        ("attack", "-", "s"),
        ("attack", ":", "^"),
        ("attack", "--", "D"),
    ]
    table = table.assign(value=table["value"].astype(str))
    fig, axes = figures.grid(3, width=3.6, height=3.0, sharey=True)
    for ax, (setting, part) in zip(axes, table.groupby("setting", sort=False)):
        ordered = setting != "merging algorithm"
        for (name, line), (role, ls, marker) in zip(part.groupby("vector", sort=False), looks):
            look = {"band": False, "ls": ls if ordered else "", "marker": marker}
            figures.curve(ax, line, "value", "ASR", role, name, **look)
        zero, look = part.drop_duplicates("value"), {"ls": ":" if ordered else "", "lw": 1}
        clean = ("ASR, clean merge", "clean", "clean merge, same trigger")
        figures.curve(ax, zero, "value", *clean, **look)
        figures.percent(ax, "merged ASR (%)", setting)
        if not ordered:
            plt.setp(ax.get_xticklabels(), rotation=35, ha="right")
    figures.legend(fig)
    return fig
