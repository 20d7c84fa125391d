"""The figures of defences, each from the table that is saved as its data."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bvlib.defences import defence
from bvlib.study import figures, ibvs
from bvlib.study.experiments import Percents, matrix

FAKES = "placebos (dash-dotted: two clean seeds; solid: reversed; dotted: noise)"
LOOKS = {  # defender: label, role, line
    ibvs.MEAN: ("IBVS, the mean vector of those", "defended", (0, (1, 1))),
    ibvs.SAME: ("IBVS, attacker's class", "defended", "--"),
    ibvs.OTHER: ("IBVS, vector of another task", "own", "--"),
    ibvs.TWO_SEEDS: (FAKES, "placebo", "-."),
    ibvs.REVERSED: (FAKES, "placebo", "-"),
    ibvs.NOISE: (FAKES, "placebo", ":"),
    ibvs.ORACLE: ("oracle: the attack's own BV", "oracle", "-"),
}
RIGHT = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
BUDGET = {"color": "black", "lw": 0.8, "ls": ":", "label": "budget of the rule"}


def _mean(ax, part: pd.DataFrame, x: str, y: str, own: Sequence[str], said: str) -> None:
    """One attack: column ``y`` over ``x``, the mean over the defenders of single classes."""
    if len(ours := part[part["defender"].isin(own)]):
        mean = ours.groupby("scale", as_index=False)[["asr", "cost"]].mean()
        figures.curve(ax, mean, x, y, "defended", f"IBVS, other classes: {said}")


def _lines(ax, part: pd.DataFrame, x: str, y: str) -> None:
    """One attack: column ``y`` over ``x`` for those of :data:`LOOKS` that were tried."""
    for defender, (label, role, ls) in LOOKS.items():
        if len(line := part[part["defender"] == defender]):
            figures.curve(ax, line, x, y, role, label, ls=ls, band=False, marker="")


def _path(ax, part: pd.DataFrame, y: str, own: Sequence[str]) -> None:
    """One attack: ASR, or clean accuracy lost, along the path of every defender that was tried."""
    tried = dict(list(part.groupby("defender")))
    faint = {"color": figures.ROLES["defended"], "lw": 0.7, "alpha": 0.5}
    for name in (n for n in own if n in tried):
        ax.plot(tried[name]["scale"], tried[name][y], **faint)
    _mean(ax, part, "scale", y, own, "each (thin), their average")
    _lines(ax, part, "scale", y)
    look = {"mfc": "white", "ms": 4, "mew": 1, "zorder": 3, "label": "λ that the rule picks"}
    for defender, at in part[part["chosen"]].groupby("defender", sort=False):
        if defender != ibvs.ORACLE:
            _, role, _ = LOOKS.get(defender, ("", "defended", ""))
            ax.plot(at["scale"], at[y], "D", mec=figures.ROLES[role], **look)


def paths(table: pd.DataFrame, zero: Percents, budget: float, own: Sequence[str]):
    """ASR (left) and clean dev accuracy lost (right) along every subtraction, a row an attack.

    ``zero`` is the ASR of the clean merge by attack (percent), ``own`` the defenders of single
    classes, drawn thin with their mean.
    """
    fig, axes, attacks = figures.panels(table, "attack", 2, width=4.2, height=2.3)
    for (a, part), (left, right) in zip(attacks, axes):
        _path(left, part, "asr", own)
        _path(right, part, "cost", own)
        left.axhline(zero[a], **figures.ZERO)
        right.axhline(budget, **BUDGET)
        figures.percent(left, "", title=f"{a}: ASR (%)")
        limits = {"ylim": (5, min(-1.5, part["cost"].min() - 0.5))}
        right.set(title=f"{a}: dev accuracy lost (points)", **limits)
    for ax in axes[-1]:
        ax.set_xlabel("λ of the subtraction")
    figures.legend(fig)
    return fig


def frontier(table: pd.DataFrame, zero: Percents, budget: float, own: Sequence[str]):
    """ASR against clean dev accuracy lost, up to 10 points, each curve a vector subtracted ever
    more; arguments as of :func:`paths`."""
    fig, axes, attacks = figures.panels(table, "attack", width=3.1, height=2.9, sharey=True)
    for (a, part), ax in zip(attacks, axes):
        _mean(ax, part, "cost", "asr", own, "average")
        _lines(ax, part, "cost", "asr")
        ax.axhline(zero[a], **figures.ZERO)
        ax.axvline(budget, **BUDGET)
        figures.percent(ax, "ASR (%)", "clean dev accuracy lost (points)", a)
        ax.set_xlim(min(-1, part["cost"].min() - 0.5), 10)
    figures.legend(fig)
    return fig


def by_merging(table: pd.DataFrame):
    """ASR after IBVS under every merging algorithm, a column an attack; the last defender is the
    placebo."""
    fig, axes, attacks = figures.panels(table, "attack", width=3.1, height=3.4, sharey=True)
    y = {m: -i for i, m in enumerate(table["merging"].unique())}
    looks = (("defended", "o", -0.0), ("defended", "s", 0.15), ("placebo", "x", -0.15))
    for ax, (name, part) in zip(axes, attacks):
        lines = part.groupby("defender", sort=False)
        for (defender, line), (role, marker, shift) in zip(lines, looks):
            at = [y[m] + shift for m in line["merging"]]
            hollow = {"mfc": "none"} if marker == "s" else {}
            look = {"color": figures.ROLES[role], "ms": 4, "label": defender, **hollow}
            ax.plot(line["ASR"], at, marker, **look)
        rows, tick = [y[m] for m in line["merging"]], {"ms": 12, "mew": 2}
        attack, clean = figures.colours("attack", "clean")
        ax.plot(line["ASR before"], rows, "|", color=attack, label="no defence", **tick)
        ax.plot(line["zero line"], rows, "|", color=clean, label=figures.ZERO["label"], **tick)
        ax.set(yticks=list(y.values()), yticklabels=list(y), xlabel="ASR (%)", xlim=(-2, 102))
        ax.set(title=name)
    figures.legend(fig)
    return fig


def rivals(table: pd.DataFrame, budget: float):
    """ASR (left) and clean accuracy lost (right) under every defence, a row an attack."""
    fig, axes, attacks = figures.panels(table, "attack", 2, width=4.4, height=3.0, sharey="row")
    role = {"none": "attack"} | {m.label: m.more.get("role") for m in defence.values()}
    for (left, right), (name, part) in zip(axes, attacks):
        part = part.iloc[::-1]
        colours = figures.colours(*(role.get(d) or "defended" for d in part["defence"]))
        left.barh(part["defence"], part["ASR"], color=colours, height=0.65)
        left.axvline(part["zero line"].iloc[0], color=figures.ROLES["clean"], lw=1, ls=":")
        left.set(xlabel="ASR (%); dotted: clean merge", xlim=(0, 102), title=name)
        right.barh(part["defence"], part["clean cost"], color=colours, height=0.65)
        right.set(xlabel="clean accuracy lost (points)", xlim=(-16, 16))
        right.axvline(budget, color="black", lw=0.8, ls=":")
    return fig


def ablations(table: pd.DataFrame):
    """ASR as one knob is turned, a panel a knob: attacked merge, and the clean merge with the same
    trigger."""
    fig, axes, knobs = figures.panels(table, "knob", width=3.0, height=2.3)
    for ax, (knob, part) in zip(axes, knobs):
        for name, line in part.groupby("attack", sort=False):
            ordered = pd.to_numeric(line["value"], errors="coerce").notna().all()
            line = line.assign(value=line["value"].astype(str))
            role, *ls = ("second", "--", "-.") if name == "badnets" else ("attack", "-", ":")
            ls = ls if ordered else ("", "")
            figures.curve(ax, line, "value", "ASR", role, f"{name}, attacked", ls=ls[0])
            clean = ("ASR, clean merge", "clean", f"{name} trigger, clean")
            figures.curve(ax, line, "value", *clean, ls=ls[1])
        figures.percent(ax, "ASR (%)", knob)
    figures.legend(fig)
    return fig


def tested(table: pd.DataFrame):
    """Neural Cleanse, Fine-Pruning and Scale-Up on attacked models and their controls, a panel
    each; the column "defence of" (cleanse, pruning, scale) says which rows are whose."""
    fig, axes, parts = figures.panels(table, "defence of", across=1, width=7.0, height=2.3)
    cleanse, pruning, scale = (dict(parts)[name] for name in ("cleanse", "pruning", "scale"))
    colour = cleanse["attacked"].map({True: "attack", False: "clean"}).map(figures.ROLES)
    index = cleanse["anomaly index"]
    end = max(3.0, 1.1 * index[np.isfinite(index)].max())
    axes[0].barh(cleanse["model"], index.clip(upper=end), color=colour)
    for row in np.flatnonzero(np.isinf(index)):
        axes[0].annotate(" ∞", (end, row), va="center")
    axes[0].axvline(2, color="black", lw=0.8, ls=":")
    axes[0].set(xlabel="anomaly index (flagged above 2)", title="Neural Cleanse")
    bars = matrix(pruning, "model", "defence", "ASR").sort_index()
    bars.plot.barh(ax=axes[1], width=0.8, color=["#c9c9c9", "#8fc3a3", "#57a773", "#2e8b57"])
    axes[1].set(xlabel="ASR (%)", ylabel="", xlim=(0, 102), title="Fine-Pruning of merges")
    axes[1].legend(**RIGHT)
    bars = scale.set_index("model")[["AUROC, trigger", "AUROC, random patch"]]
    bars.plot.barh(ax=axes[2], width=0.7, color=figures.colours("attack", "random"))
    axes[2].axvline(0.5, color="black", lw=0.8, ls=":")
    axes[2].set(xlabel="AUROC (dotted: chance)", ylabel="", xlim=(0, 1), title="Scale-Up")
    axes[2].legend(**RIGHT)
    return fig
