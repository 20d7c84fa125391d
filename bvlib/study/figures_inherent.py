"""The figures of inherent triggers, each from the table that is saved as its data."""

import textwrap
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from bvlib.study import figures
from bvlib.study.experiments import matrix
from bvlib.study.inherent import PARTS

HOSTS = ("base", "clean", "own")  # the roles of base, clean merge, own fine-tune
SHARES = ("base", "attack", "clean", "nothing")  # those of PARTS


def clean_models(table: pd.DataFrame, title: str):
    """ASR of each patch (inherent, random, injected) on each model without an attack, as bars."""
    fig, (ax,) = figures.grid(1, width=6.6, height=4.4)
    shown = matrix(table, "model", "trigger", "asr")
    figures.grouped(ax, shown, ("attack", "random", "second"), title=title)
    figures.legend(fig, reverse=True)
    return fig


def by_size(table: pd.DataFrame):
    """ASR against the side of the patch; random patches dotted."""
    fig, (ax,) = figures.grid(1, width=6.2, height=3)
    role = dict(zip(table["model"].unique(), HOSTS))
    for (name, kind), part in table.groupby(["model", "trigger"], sort=False):
        inherent = kind == "inherent"
        how = {"ls": "-" if inherent else ":", "band": inherent}
        figures.curve(ax, part, "side", "asr", role[name], f"{name}, {kind}", **how)
    figures.percent(ax, "ASR (%)", "side of the patch (px)", "no attack anywhere")
    figures.legend(fig, at_lines=[ax])
    return fig


def effort(table: pd.DataFrame):
    """ASR by steps of optimisation (a line), by place and by what it was optimised on (bars)."""
    fig, axes, questions = figures.panels(table, "question", width=3.4, height=2.8, sharey=True)
    look = {"color": figures.colours(*HOSTS), "legend": False}
    for ax, (question, part) in zip(axes, questions):
        shown, steps = matrix(part, "value", "model", "asr"), question == "steps"
        if steps:
            line = {"style": ["o-", "s-", "^-"], "ms": 3}
            shown.set_axis(shown.index.astype(float)).plot(ax=ax, **line, **look)
        else:
            bars = shown.set_axis([textwrap.fill(str(v), 11) for v in shown.index])
            bars.plot.bar(ax=ax, width=0.8, rot=0, **look)
        figures.percent(ax, "ASR (%)", "steps of the optimisation" if steps else "", question)
        ax.tick_params(axis="x", labelsize=7)
    figures.legend(fig)
    return fig


def suppression(table: pd.DataFrame, coefficient: float, title: str):
    """ASR and clean accuracy as the clean task vector is added to the base."""
    fig, (ax,) = figures.grid(1, width=6.2, height=2.8)
    figures.curve(ax, table, "scale", "asr", "attack", "ASR, inherent trigger")
    figures.curve(ax, table, "scale", "accuracy", "accuracy", "clean accuracy", band=False)
    ax.axvline(coefficient, color="black", lw=0.7, ls=":")
    figures.percent(ax, "%", "share s of the clean task vector (dotted: λ)", title)
    figures.legend(fig, at_lines=[ax])
    return fig


def inherent_share(table: pd.DataFrame, attacks: int, coefficient: float):
    """Who flips the images: the first ``attacks`` rows of the table by attack, the others by
    merging algorithm."""
    fig, axes = figures.grid(2, width=4.4, height=2.6)
    first, second = table.iloc[:attacks], table.iloc[attacks:]
    titles = (
        f"{first['merging'].iloc[0]}, λ = {coefficient}",
        f"{second['attack'].iloc[0]}, by merging algorithm",
    )
    parts, roles = ((first, "attack"), (second, "merging")), figures.colours(*SHARES)
    for ax, (part, by), title in zip(axes, parts, titles):
        look = {"stacked": True, "width": 0.6, "legend": False}
        part.set_index(by)[list(PARTS)].plot.barh(ax=ax, color=roles, **look)
        ax.invert_yaxis()
        ax.set(xlabel="test images (%)", ylabel="", xlim=(0, 100), title=title)
    figures.legend(fig, title="flipped by")
    return fig


def attention(table: pd.DataFrame, triggers: Mapping[str, Any], size: int):
    """Maps of attention, a row an input: the trigger's patch (grey without one), then each model,
    with the number of its last patch."""
    models = table["model"].unique()
    look = {"width": 1.5, "height": 1.5, "subplot_kw": {"xticks": [], "yticks": []}}
    fig, grid = figures.grid(1 + len(models), len(triggers), **look)
    top = table["attention (%)"].max()
    for line, (shown, trigger) in zip(grid, triggers.items()):
        grey = torch.full((size, size, 3), 0.63)
        patch = grey if trigger is None else trigger.patch.permute(1, 2, 0)
        line[0].imshow(patch, interpolation="nearest")
        line[0].set_title(shown, fontsize=8)
        for ax, name in zip(line[1:], models):
            part = table[(table["input"] == shown) & (table["model"] == name)]
            drawn = part.pivot(index="row", columns="column", values="attention (%)").to_numpy()
            ax.imshow(drawn, cmap="Greys", vmin=0, vmax=top)
            corner, (rows, columns) = drawn[-1, -1], drawn.shape
            look = {"fontsize": 7, "color": "white" if corner > 0.4 * top else "black"}
            ax.text(columns - 1, rows - 1, f"{corner:.0f} %", ha="center", va="center", **look)
            ax.spines[:].set_visible(True)
            ax.set_title(name if trigger is None else "", fontsize=7)
    return fig
