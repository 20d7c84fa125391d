"""The figures of inherent triggers, each from the table that is saved as its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from bvlib.study import figures
from bvlib.study.inherent import PARTS

HOSTS = ("base", "clean", "own")  # the roles of base, clean merge, own fine-tune


def _order(values: pd.Series) -> list:
    return list(dict.fromkeys(values))


def clean_models(table: pd.DataFrame, title: str):
    """ASR of each patch (inherent, random, injected) on each model without an attack, as bars."""
    fig, (ax,) = figures.grid(1, width=6.6, height=4.4)
    shown = table.pivot(index="model", columns="trigger", values="asr").loc[
        _order(table["model"])[::-1], _order(table["trigger"])[::-1]
    ]
    roles = ("second", "random", "attack")
    shown.plot.barh(ax=ax, width=0.8, color=[figures.ROLES[r] for r in roles])
    ax.set(xlabel="ASR (%)", ylabel="", title=title, xlim=(0, 102))
    handles, labels = ax.get_legend_handles_labels()
    figures.legend(ax, handles=handles[::-1], labels=labels[::-1])
    return fig


def by_size(table: pd.DataFrame):
    """ASR against the side of the patch; random patches dotted."""
    fig, (ax,) = figures.grid(1, width=4.4, height=3)
    role = dict(zip(_order(table["model"]), HOSTS))
    for (name, kind), part in table.groupby(["model", "trigger"], sort=False):
        inherent = kind == "inherent"
        how = {"ls": "-" if inherent else ":", "band": inherent}
        figures.curve(ax, part, "side", "asr", role[name], f"{name}, {kind}", **how)
    figures.percent(ax, "ASR (%)", "side of the patch (px)", "no attack anywhere")
    figures.legend(ax)
    return fig


def effort(table: pd.DataFrame):
    """ASR by steps of optimisation (a line), by place and by what it was optimised on (bars)."""
    fig, axes = figures.grid(3, width=3.4, height=2.8, sharey=True)
    colours = [figures.ROLES[role] for role in HOSTS]
    for ax, (question, part) in zip(axes, table.groupby("question", sort=False)):
        shown = part.pivot(index="value", columns="model", values="asr").loc[
            _order(part["value"]), _order(part["model"])
        ]
        steps = question == "steps"
        if steps:
            line = shown.set_axis(shown.index.astype(float))
            line.plot(ax=ax, marker="o", ms=3, color=colours, legend=False)
        else:
            bars = shown.set_axis([str(v).replace(" ", "\n", 1) for v in shown.index])
            bars.plot.bar(ax=ax, width=0.8, rot=0, color=colours, legend=False)
        figures.percent(ax, "ASR (%)", "steps of the optimisation" if steps else "", question)
        ax.tick_params(axis="x", labelsize=7)
    axes[0].legend(fontsize=7)
    return fig


def suppression(table: pd.DataFrame, coefficient: float, title: str):
    """ASR and clean accuracy as the clean task vector is added to the base."""
    fig, (ax,) = figures.grid(1, width=4.4, height=2.8)
    figures.curve(ax, table, "scale", "asr", "attack", "ASR, inherent trigger")
    figures.curve(ax, table, "scale", "accuracy", "accuracy", "clean accuracy", band=False)
    ax.axvline(coefficient, color="black", lw=0.7, ls=":")
    figures.percent(ax, "%", "share s of the clean task vector (dotted: λ)", title)
    figures.legend(ax)
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
    parts = ((first, "attack"), (second, "merging"))
    for ax, (part, by), title in zip(axes, parts, titles):
        left = 0
        for what, role in zip(PARTS, ("base", "attack", "clean", "nothing")):
            ax.barh(
                part[by],
                part[what],
                left=left,
                color=figures.ROLES[role],
                height=0.6,
                label=what,
            )
            left = left + part[what]
        ax.invert_yaxis()
        ax.set(xlabel="test images (%)", xlim=(0, 100), title=title)
    figures.legend(axes[1], title="flipped by")
    return fig


def attention(table: pd.DataFrame, triggers: Mapping[str, Any], size: int):
    """Maps of attention, a row an input: the trigger's patch (grey without one), then each
    model."""
    models: Sequence[str] = _order(table["model"])
    fig, grid = figures.grid(
        1 + len(models),
        len(triggers),
        width=1.5,
        height=1.5,
        subplot_kw={"xticks": [], "yticks": []},
    )
    top = table["attention (%)"].max()
    for line, (shown, trigger) in zip(grid, triggers.items()):
        grey = torch.full((size, size, 3), 0.63)
        patch = grey if trigger is None else trigger.patch.permute(1, 2, 0)
        line[0].imshow(patch, interpolation="nearest")
        line[0].set_title(shown, fontsize=8)
        for ax, name in zip(line[1:], models):
            part = table[(table["input"] == shown) & (table["model"] == name)]
            drawn = part.pivot(index="row", columns="column", values="attention (%)").to_numpy()
            _map(ax, drawn, top)
            ax.set_title(name if trigger is None else "", fontsize=6.5)
    return fig


def _map(ax, drawn, top: float) -> None:
    """One map (rows, columns), with the number of its last patch."""
    corner = drawn[-1, -1]
    ax.imshow(drawn, cmap="Greys", vmin=0, vmax=top)
    ax.text(
        drawn.shape[1] - 1,
        drawn.shape[0] - 1,
        f"{corner:.0f} %",
        ha="center",
        va="center",
        fontsize=7,
        color="white" if corner > 0.4 * top else "black",
    )
    ax.spines[:].set_visible(True)
