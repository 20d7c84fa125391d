"""One style, one palette by role; a saved figure is a picture, its data and its provenance.

Colours are by what a thing *is*, so the same colour means the same in every figure: see
:data:`ROLES`. All numbers on axes are percent unless the label says otherwise.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from bvlib.files.safe import write_json, write_whole

ROLES = {
    "attack": "#c0392b",
    "second": "#e08e45",  # the attack that a figure is about, and the one beside it
    "base": "#6b6b6b",
    "clean": "#2c6fbb",
    "own": "#1b9aaa",  # models without an attack: base, merge, one task's fine-tune
    "average": "#9cc3e6",
    "task_arithmetic": "#2c6fbb",
    "ties": "#173a63",  # clean merges, where several methods are compared
    "random": "#b8a14a",
    "nothing": "#c9c9c9",  # controls on the input: a random patch, no trigger
    "placebo": "#9a7bb5",
    "defended": "#2e8b57",  # vectors: those without a backdoor, those that a defence subtracts
    "oracle": "#222222",
    "accuracy": "#7a4a1e",  # what no defender has; an accuracy drawn beside an ASR
}
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "svg.hashsalt": "bvlib",
}


plt.rcParams.update(STYLE)


def grid(columns: int = 1, rows: int = 1, width: float = 3.4, height: float = 2.6, **kwargs):
    """A figure and its axes (always an array), in the house style."""
    fig, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, **kwargs
    )
    return fig, axes[0] if rows == 1 else axes


def curve(
    ax, table: pd.DataFrame, x: str, y: str, role: str, label: str, band: bool = True, **line
) -> None:
    """A line with its interval (columns low and high when there are any) in a role's colour."""
    ax.plot(
        table[x],
        table[y],
        color=ROLES[role],
        label=label,
        marker=line.pop("marker", "o"),
        ms=3,
        lw=1.5,
        **line,
    )
    if band and {"low", "high"} <= set(table.columns):
        ax.fill_between(table[x], table["low"], table["high"], color=ROLES[role], alpha=0.15, lw=0)


def percent(ax, ylabel: str, xlabel: str = "", title: str = "", top: float = 100) -> None:
    """Percent on the y axis from 0, labels, title."""
    ax.set(ylabel=ylabel, xlabel=xlabel, title=title, ylim=(-2, top * 1.02))


def thin(ax, table: pd.DataFrame, x: str, y: str, by: str, role: str, **line) -> None:
    """One faint line for each value of column ``by``, behind the mean."""
    for _, part in table.groupby(by, sort=False):
        ax.plot(part[x], part[y], color=ROLES[role], lw=0.7, alpha=0.5, **line)


def bars(ax, table: pd.DataFrame, value: str, label: str, roles: Sequence[str]) -> None:
    """Horizontal bars with intervals (columns low and high) and their values written beside
    them."""
    y = np.arange(len(table))[::-1]
    values = table[value].to_numpy()
    ax.barh(y, values, color=[ROLES[r] for r in roles], height=0.65)
    if {"low", "high"} <= set(table.columns):
        ax.errorbar(
            values,
            y,
            xerr=[values - table["low"], table["high"] - values],
            fmt="none",
            ecolor="black",
            lw=0.8,
        )
        edge = table["high"].to_numpy()
    else:
        edge = values
    for at, v, e in zip(y, values, edge):
        ax.text(max(e, 0) + 1.5, at, f"{v:.1f}", va="center", fontsize=7.5)
    ax.set(yticks=y, yticklabels=table[label], xlim=(0, 112))
    ax.set_xticks(range(0, 101, 25))
    ax.grid(axis="y", visible=False)


def heatmap(
    ax,
    table: pd.DataFrame,
    title: str,
    fmt: str = ".2f",
    low: float = -1,
    high: float = 1,
    label: str = "",
) -> None:
    """A labelled matrix; blank where there is no number."""
    sns.heatmap(
        table.astype(float),
        ax=ax,
        annot=True,
        fmt=fmt,
        cmap="vlag",
        vmin=low,
        vmax=high,
        annot_kws={"size": 7},
        cbar_kws={"label": label, "shrink": 0.8},
        square=False,
        linewidths=0.5,
    )
    ax.set(title=title, xlabel="", ylabel="")
    ax.grid(False)
    ax.tick_params(axis="x", rotation=35)
    ax.tick_params(axis="y", rotation=0)
    for tick in ax.get_xticklabels():
        tick.set_ha("right")


def transfer(table: pd.DataFrame):
    """The matrices of :func:`study.experiments.transfer_matrix`, an axis a column: added above,
    removed
    below."""
    axes = list(table.groupby("axis", sort=False))
    fig, panels = grid(len(axes), 2, width=3.3, height=2.3)
    for line, (column, what) in zip(
        panels, (("added", "θ_clean + BV"), ("removed", "θ_backdoored − BV"))
    ):
        for ax, (axis, part) in zip(line, axes):
            names = list(dict.fromkeys(part["attack"]))
            matrix = part.pivot(index="attack", columns="vector", values=column).loc[
                names, list(dict.fromkeys(part["vector"]))
            ]
            heatmap(
                ax,
                matrix,
                f"{axis}: {what}",
                fmt=".0f",
                low=-150,
                high=150,
                label="% of own effect" if axis == axes[-1][0] else "",
            )
            ax.set(ylabel="trigger of" if axis == axes[0][0] else "")
    return fig


def pictures(images, titles: Sequence[str] = (), columns: int = 8, side: float = 0.9):
    """A sheet of images (N, H, W, 3) uint8 or (N, 3, H, W) float in [0, 1], with short titles."""
    images = [
        np.asarray(i.permute(1, 2, 0) if getattr(i, "ndim", 0) == 3 and i.shape[0] == 3 else i)
        for i in images
    ]
    rows = max(1, -(-len(images) // columns))
    fig, axes = grid(columns, rows, side, side * (1.22 if len(titles) else 1.0))
    for ax, i in zip(np.ravel(axes), range(rows * columns)):
        ax.axis("off")
        if i < len(images):
            ax.imshow(images[i], interpolation="nearest")
            if i < len(titles):
                ax.set_title(textwrap.fill(titles[i], 13), fontsize=6.5, pad=2)
    return fig


def legend(ax, **where) -> None:
    """A legend to the right of the axes, which keep their size: the saved picture grows instead."""
    ax.legend(**{"loc": "upper left", "bbox_to_anchor": (1, 1), **where}).set_in_layout(False)


def _settle(fig) -> None:
    """Lay the figure out without the legends, then let the saved picture hold them."""
    fig.canvas.draw()
    fig.set_layout_engine("none")
    for ax in fig.axes:
        if ax.get_legend():
            ax.get_legend().set_in_layout(True)


def save(fig, path: Path, data: pd.DataFrame, provenance: Mapping) -> list[Path]:
    """Write ``path``.png, ``path``.csv (the data of the figure) and ``path``.json (where both come
    from)."""
    path = Path(path)
    png, csv, card = (path.with_name(path.name + end) for end in (".png", ".csv", ".json"))
    _settle(fig)
    write_whole(
        png,
        lambda draft: fig.savefig(
            draft, format="png", bbox_inches="tight", metadata={"Software": None}
        ),
    )
    write_whole(csv, lambda draft: data.to_csv(draft, index=False, float_format="%.6g"))
    write_json(card, dict(provenance))
    return [png, csv, card]
