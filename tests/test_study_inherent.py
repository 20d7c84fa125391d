"""Inherent triggers: the split of an attack's success and the tables of clean models, by hand."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Dial, blank_task
from matplotlib import pyplot as plt

from bvlib.attacks import triggers
from bvlib.core.metrics import wilson
from bvlib.study import attention, figures_inherent, inherent

TASK = blank_task("blank", [0, 0, 2, 2, 1])  # four images count for target 1


def obeying(number, trigger, split):
    """Sends as many of the images to class 1 as the model's number and the trigger say."""
    return [1] * (number + (trigger or 0)) + [0] * (5 - number - (trigger or 0))


MODELS = {"base": Dial(obeying, 2), "merge": Dial(obeying, 1)}


def test_the_success_of_an_attack_is_split_image_by_image():
    attacked = np.array([True, True, True, False, False])
    found = inherent.split(attacked, np.array([True, False, False, True, False]))
    assert [found[part] for part in inherent.PARTS] == [20, 40, 20, 20]
    assert found["images"] == 5 and found["attacked - clean"] == pytest.approx(20)
    share = wilson(1, 3)  # of three images that the attack flips, one was flipped before
    wanted = (share.percent, share.low, share.high)
    names = ("inherent share of ASR (%)", "share low", "share high")
    assert tuple(found[name] for name in names) == wanted
    assert found["low"] < 20 < found["high"]


def test_an_attack_that_flips_nothing_has_no_inherent_share():
    found = inherent.split(np.zeros(4, dtype=bool), np.array([True, False, False, False]))
    assert found["inherent share of ASR (%)"] == 0 and found["clean merge only"] == 25
    assert found["attacked - clean"] == -25


def test_every_trigger_on_every_model_is_a_row():
    table = inherent.obeyed(MODELS, {"weak": 0, "strong": 2}, TASK, 1, place="corner")
    columns = ["place", "model", "trigger", "asr", "low", "high", "images"]
    assert list(table) == columns and set(table["images"]) == {4}
    assert table["asr"].tolist() == [50, 100, 25, 75]
    assert list(zip(table["model"], table["trigger"]))[1] == ("base", "strong")
    assert inherent.excess(table, "merge", "strong", "weak") == 50


def test_a_side_is_a_share_of_the_images_pixels():
    table = inherent.by_size([1, 2], MODELS, lambda side: {"inherent": side}, TASK, 1)
    assert list(table)[:4] == ["side", "pixels (%)", "model", "trigger"]
    assert table["pixels (%)"].tolist() == [6.25, 6.25, 25, 25]  # of 4 × 4
    assert table["asr"].tolist() == [75, 50, 100, 75] and "images" not in table


def test_effort_keeps_questions_and_values_as_they_are_asked():
    table = inherent.effort([("steps", 0, 0), ("place", "centre", 1)], MODELS, TASK, 1)
    assert list(table) == ["question", "value", "model", "asr", "low", "high"]
    assert table["value"].tolist() == [0, 0, "centre", "centre"]
    assert table["asr"].tolist() == [50, 25, 75, 50]


def test_target_classes_are_rows():
    shown = {1: {"inherent": 1, "random": 0}, 2: {"inherent": 2, "random": 0}}
    table = inherent.by_class(shown, MODELS, TASK)
    assert list(table) == ["target"] + [
        f"{m} / {t}" for m in ("base", "merge") for t in ("inherent", "random")
    ]
    assert table["target"].tolist() == ["one", "two"]
    assert table.iloc[0, 1:].tolist() == [75, 50, 50, 25] and not table.iloc[1, 1:].any()


def test_maps_of_attention_are_means_over_images(tiny):
    images, white = tiny["seen"]["left"].images[:4], triggers.solid(4)
    thetas = {"base": tiny["base"], "moved": tiny["base"] + tiny["vectors"]["left"]}
    pasted = {"none": None, "white": white}
    table = attention.maps(tiny["encoder"], thetas, pasted, images)
    whole = attention.class_attention(tiny["encoder"], thetas["moved"], images, white).mean(0)
    part = table[(table["input"] == "white") & (table["model"] == "moved")]
    assert part["attention (%)"].tolist() == pytest.approx((100 * whole.flatten()).tolist())
    last = attention.last_patch(table)
    assert last["input"].tolist() == ["none", "white"] and list(last)[1:] == ["base", "moved"]
    assert last.loc[1, "moved"] == pytest.approx(100 * float(whole[-1, -1]))


def csv(table):
    """The table as it comes back from the file that is saved beside a figure."""
    return pd.read_csv(io.StringIO(table.to_csv(index=False)))


def test_figures_are_drawn_from_their_saved_tables():
    obeyed = inherent.obeyed(MODELS, {"inherent (universal)": 2, "random": 0, "white": 1}, TASK, 1)
    fig = figures_inherent.clean_models(csv(obeyed), "title")
    assert len(fig.axes[0].patches) == 6 and fig.axes[0].get_title() == "title"
    hosts = {**MODELS, "own": Dial(obeying, 0)}
    sizes = inherent.by_size([1, 2], hosts, lambda s: {"inherent": s, "random": 0}, TASK, 1)
    assert len(figures_inherent.by_size(csv(sizes)).axes[0].lines) == 6
    tried = [("steps", 0, 0), ("steps", 2, 1), ("place", "centre", 1), ("optimised on", "it", 1)]
    fig = figures_inherent.effort(csv(inherent.effort(tried, hosts, TASK, 1)))
    assert [len(ax.lines) for ax in fig.axes] == [3, 0, 0]
    hits = np.array([True, False]), np.array([False, False])
    split = pd.DataFrame([{"attack": a, **inherent.split(*hits)} for a in ("one", "two")])
    table = pd.concat([split.assign(merging="ties"), split[:1].assign(merging="average")])
    fig = figures_inherent.inherent_share(csv(table), 2, 0.3)
    assert [len(ax.patches) for ax in fig.axes] == [8, 4]
    assert [ax.get_title() for ax in fig.axes] == ["ties, λ = 0.3", "one, by merging algorithm"]
    plt.close("all")


def test_a_map_says_how_much_its_last_patch_draws():
    rows = [
        {"input": i, "model": "base", "row": r, "column": c, "attention (%)": 10 * r + c}
        for i in ("no trigger", "white")
        for r in range(2)
        for c in range(2)
    ]
    shown = {"no trigger": None, "white": triggers.solid(2)}
    fig = figures_inherent.attention(csv(pd.DataFrame(rows)), shown, 2)
    assert [text.get_text() for ax in fig.axes for text in ax.texts] == ["11 %", "11 %"]
    assert torch.equal(torch.ones(3, 2, 2), shown["white"].patch)
    plt.close("all")
