"""The figures of defences, each from the table that is saved as its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from bvlib.defences import defence
from bvlib.study import figures, ibvs

LOOKS = {  # defender: label, role, line
    ibvs.MEAN: ("IBVS, mean vector", "defended", (0, (1, 1))),
    ibvs.SAME: ("IBVS, attacker's class", "defended", "--"),
    ibvs.OTHER: ("IBVS, vector of another task", "own", "-"),
    ibvs.TWO_SEEDS: ("placebo: two clean seeds", "placebo", "-"),
    ibvs.NOISE: ("placebo: noise", "placebo", ":"),
    ibvs.ORACLE: ("oracle: the attack's own BV", "oracle", "-"),
}
ZERO = {"color": figures.ROLES["clean"], "lw": 1, "ls": ":", "label": "clean merge, same trigger"}
BUDGET = {"color": "black", "lw": 0.8, "ls": ":", "label": "budget of the rule"}
BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncol": 2}


def _line(ax, part: pd.DataFrame, y: str, own: Sequence[str]) -> None:
    """One attack: ASR, or clean accuracy lost, along the path of every defender."""
    ours = part[part["defender"].isin(own)]
    if len(ours):
        figures.thin(ax, ours, "scale", y, "defender", "defended")
        mean = ours.groupby("scale", as_index=False)[y].mean()
        figures.curve(ax, mean, "scale", y, "defended", "IBVS, other classes: each, and mean")
    for name, (label, role, ls) in LOOKS.items():
        if len(line := part[part["defender"] == name]):
            figures.curve(ax, line, "scale", y, role, label, ls=ls, band=False, marker="")
    marked = part[part["chosen"] & (part["defender"] != ibvs.ORACLE)]
    look = {"mfc": "none", "mec": "black", "ms": 4, "mew": 0.8}
    ax.plot(marked["scale"], marked[y], "D", label="λ that the rule picks", **look)


def paths(table: pd.DataFrame, zero: Mapping[str, float], budget: float, own: Sequence[str]):
    """ASR (above) and clean dev accuracy lost (below) along every subtraction, a column an attack.

    ``zero`` is the ASR of the clean merge by attack (percent), ``own`` the defenders of single
    classes, drawn thin with their mean.
    """
    attacks = list(dict.fromkeys(table["attack"]))
    fig, axes = figures.grid(len(attacks), 2, width=3.3, height=2.7)
    for a, above, below in zip(attacks, *axes.reshape(2, -1)):
        part = table[table["attack"] == a]
        _line(above, part, "asr", own)
        _line(below, part, "cost", own)
        above.axhline(zero[a], **ZERO)
        below.axhline(budget, **BUDGET)
        figures.percent(above, "ASR (%)", "λ of the subtraction", a)
        ylabel = "clean dev accuracy lost (points)"
        below.set(ylabel=ylabel, xlabel="λ of the subtraction", title=a, ylim=(5, -1.5))
    shown = [ax.get_legend_handles_labels() for ax in axes[:, :2].flat]
    handles = {label: h for pair in shown for h, label in zip(*pair)}
    figures.legend(axes[0, -1], handles=list(handles.values()), labels=list(handles))
    return fig


def frontier(table: pd.DataFrame, zero: Mapping[str, float], budget: float, own: Sequence[str]):
    """ASR against clean dev accuracy lost, each curve a vector subtracted ever more; arguments as
    of :func:`paths`."""
    attacks = list(dict.fromkeys(table["attack"]))
    fig, axes = figures.grid(len(attacks), width=3.1, height=2.9, sharey=True)
    for a, ax in zip(attacks, axes):
        part = table[table["attack"] == a]
        ours = part[part["defender"].isin(own)]
        if len(ours):
            mean = ours.groupby("scale", as_index=False)[["asr", "cost"]].mean()
            figures.curve(ax, mean, "cost", "asr", "defended", "IBVS, other classes: mean")
        for name, (label, role, ls) in LOOKS.items():
            line = part[part["defender"] == name]
            figures.curve(ax, line, "cost", "asr", role, label, ls=ls, band=False)
        ax.axhline(zero[a], **ZERO)
        ax.axvline(budget, **BUDGET)
        ylabel = "ASR (%)" if ax is axes[0] else ""
        figures.percent(ax, ylabel, "clean dev accuracy lost (points)", a)
    handles, labels = axes[0].get_legend_handles_labels()
    figures.legend(axes[-1], handles=handles, labels=labels)
    return fig


def by_merging(table: pd.DataFrame):
    """ASR after IBVS under every merging algorithm, a column an attack; the last defender is the
    placebo."""
    methods = list(dict.fromkeys(table["merging"]))
    attacks = list(table.groupby("attack", sort=False))
    fig, axes = figures.grid(len(attacks), 1, width=3.1, height=3.4, sharey=True)
    y = {m: -i for i, m in enumerate(methods)}
    looks = (("defended", "o", -0.0), ("defended", "s", 0.15), ("placebo", "x", -0.15))
    for ax, (name, part) in zip(axes, attacks):
        lines = part.groupby("defender", sort=False)
        for (defender, line), (role, marker, shift) in zip(lines, looks):
            at = [y[m] + shift for m in line["merging"]]
            hollow = {"mfc": "none"} if marker == "s" else {}
            look = {"color": figures.ROLES[role], "ms": 4, "label": defender, **hollow}
            ax.plot(line["ASR"], at, marker, **look)
        rows, tick = [y[m] for m in line["merging"]], {"ms": 12, "mew": 2}
        attack, clean = figures.ROLES["attack"], figures.ROLES["clean"]
        ax.plot(line["ASR before"], rows, "|", color=attack, label="no defence", **tick)
        ax.plot(line["zero line"], rows, "|", color=clean, label=ZERO["label"], **tick)
        ax.set(yticks=list(y.values()), yticklabels=list(y), xlabel="ASR (%)", xlim=(-2, 102))
        ax.set(title=name)
    figures.legend(axes[-1])
    return fig


def rivals(table: pd.DataFrame, budget: float):
    """ASR (above) and clean accuracy lost (below) under every defence, a column an attack."""
    attacks = list(table.groupby("attack", sort=False))
    fig, axes = figures.grid(len(attacks), 2, width=3.0, height=3.0, sharey=True)
    role = {"none": "attack"} | {
        m.label: m.more["role"] for m in defence.values() if "role" in m.more
    }
    for above, below, (name, part) in zip(*axes, attacks):
        part = part.iloc[::-1]
        colours = [figures.ROLES[role.get(d, "defended")] for d in part["defence"]]
        above.barh(part["defence"], part["ASR"], color=colours, height=0.65)
        above.axvline(part["zero line"].iloc[0], color=figures.ROLES["clean"], lw=1, ls=":")
        above.set(xlabel="ASR (%); dotted: clean merge", xlim=(0, 102), title=name)
        below.barh(part["defence"], part["clean cost"], color=colours, height=0.65)
        below.set(xlabel="clean accuracy lost (points)", xlim=(-16, 16))
        below.axvline(budget, color="black", lw=0.8, ls=":")
    return fig


def ablations(table: pd.DataFrame, columns: int = 4):
    """ASR as one knob is turned, a panel a knob: attacked merge, and the clean merge with the same
    trigger."""
    knobs = list(table.groupby("knob", sort=False))
    fig, axes = figures.grid(columns, -(-len(knobs) // columns), width=2.7, height=2.3)
    for ax, (knob, part) in zip(axes.flat, knobs):
        for name, line in part.groupby("attack", sort=False):
            x, second = line["value"].astype(str), name == "badnets"
            role, ls = ("second", "--") if second else ("attack", "-")
            look = {"marker": "o", "ms": 3}
            colour, clean = figures.ROLES[role], figures.ROLES["clean"]
            ax.plot(x, line["ASR"], color=colour, ls=ls, label=f"{name}, attacked", **look)
            look |= {"color": clean, "ls": "-." if second else ":"}
            ax.plot(x, line["ASR, clean merge"], label=f"{name} trigger, clean", **look)
        figures.percent(ax, "ASR (%)", knob)
        ax.legend(fontsize=5.5)
    return fig


def tested(table: pd.DataFrame):
    """Neural Cleanse, Fine-Pruning and Scale-Up on attacked models and their controls, a panel
    each; the column "defence of" (cleanse, pruning, scale) says which rows are whose."""
    cleanse, pruning, scale = (
        table[table["defence of"] == part] for part in ("cleanse", "pruning", "scale")
    )
    fig, axes = figures.grid(3, width=4.0, height=2.9)
    colour = [figures.ROLES["attack" if a else "clean"] for a in cleanse["attacked"]]
    axes[0].barh(cleanse["model"], cleanse["anomaly index"].clip(upper=6), color=colour)
    axes[0].axvline(2, color="black", lw=0.8, ls=":")
    axes[0].set(xlabel="anomaly index (flagged above 2)", title="Neural Cleanse")
    versions = list(dict.fromkeys(pruning["defence"]))
    bars = pruning.pivot(index="model", columns="defence", values="ASR")[versions]
    bars.plot.barh(ax=axes[1], width=0.8, color=["#c9c9c9", "#8fc3a3", "#57a773", "#2e8b57"])
    axes[1].set(xlabel="ASR (%)", ylabel="", xlim=(0, 102), title="Fine-Pruning of merges")
    figures.legend(axes[1], **BELOW)
    bars = scale.set_index("model")[["AUROC, trigger", "AUROC, random patch"]]
    roles = [figures.ROLES["attack"], figures.ROLES["random"]]
    bars.plot.barh(ax=axes[2], width=0.7, color=roles)
    axes[2].axvline(0.5, color="black", lw=0.8, ls=":")
    axes[2].set(xlabel="AUROC (dotted: chance)", ylabel="", xlim=(0, 1), title="Scale-Up")
    figures.legend(axes[2], **BELOW)
    return fig
