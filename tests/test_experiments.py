"""Experiments: each table has its rows, its controls and its zero lines."""

import dataclasses

import numpy as np
import pytest

from bvlib.attacks import recipes, triggers
from bvlib.core.encoder import Model
from bvlib.study import badmerging, experiments


@pytest.fixture
def model(encoder):
    """Weights as a model."""
    return lambda theta: Model(encoder, theta)


@pytest.fixture
def attack(backdoor):
    """The backdoor as an attack gives it."""
    made = (backdoor.target, backdoor.trigger, backdoor.theta, backdoor.vector)
    return recipes.Backdoor("badnets", "shapes", *made, "shapes")


CONTROLS = {"badnets": triggers.random_patch(8, 0)}


def five_rows(attack, shapes, attacked, clean, base):
    return badmerging.five_rows(
        {"badnets": attack},
        CONTROLS,
        merge=lambda theta=None: clean if theta is None else attacked,
        base=base,
        task={"shapes": shapes}.get,
    )


def test_an_asr_comes_with_its_four_controls(encoder, model, shapes, backdoor, attack):
    thetas = backdoor.theta, backdoor.clean, encoder.theta
    rows = five_rows(attack, shapes, *map(model, thetas))
    assert list(zip(rows["model"], rows["input"])) == [
        ("attacked merge", "trigger"),
        ("clean merge", "trigger"),
        ("base", "trigger"),
        ("attacked merge", "random patch"),
        ("attacked merge", "no trigger"),
    ]
    pairs = [
        (backdoor.theta, backdoor.trigger),
        (backdoor.clean, backdoor.trigger),
        (encoder.theta, backdoor.trigger),
        (backdoor.theta, CONTROLS["badnets"]),
        (backdoor.theta, None),
    ]
    wanted = [
        experiments.asr(model(theta), shapes, trigger, backdoor.target).percent
        for theta, trigger in pairs
    ]
    assert rows["asr"].tolist() == wanted and wanted[0] > max(wanted[1:])
    others = int((shapes.test.labels != backdoor.target).sum())
    assert (
        set(rows["images"]) == {others}
        and (rows["low"] <= rows["asr"]).all()
        and (rows["asr"] <= rows["high"]).all()
    )


@pytest.mark.parametrize("role, row", [("attacked", 0), ("clean", 1), ("base", 2)])
def test_each_row_is_of_its_own_model(model, shapes, backdoor, attack, role, row):
    models = dict.fromkeys(["attacked", "clean", "base"], model(backdoor.clean))
    rows = five_rows(attack, shapes, **{**models, role: model(backdoor.theta)})
    assert rows["asr"].idxmax() == row and rows["asr"][row] > sorted(rows["asr"])[-2]


def test_asr_counts_images_of_other_classes_only(encoder, model, shapes, backdoor):
    predicted = encoder.predict(
        backdoor.theta,
        shapes.test.images,
        encoder.head(shapes.classnames, shapes.prompts),
        backdoor.trigger,
    )
    hits = [
        p == backdoor.target
        for p, y in zip(predicted.tolist(), shapes.test.labels.tolist())
        if y != backdoor.target
    ]
    assert (
        experiments.flipped(
            model(backdoor.theta), shapes, backdoor.trigger, backdoor.target
        ).tolist()
        == hits
    )
    assert experiments.asr(
        model(backdoor.theta), shapes, backdoor.trigger, backdoor.target
    ).percent == 100 * np.mean(hits)


def test_accuracies_end_with_their_mean(encoder, model, shapes):
    one = experiments.accuracy(model(encoder.theta), shapes).percent
    dev = experiments.accuracy(model(encoder.theta), shapes, "dev").percent
    assert experiments.accuracies(model(encoder.theta), {"a": shapes, "b": shapes}).to_dict() == {
        "a": one,
        "b": one,
        "mean": one,
    }
    assert experiments.accuracies(model(encoder.theta), {"a": shapes}, "dev")["mean"] == dev


def test_a_path_starts_at_its_start_and_ends_at_its_end(encoder, model, shapes, backdoor):
    path = experiments.along(
        lambda s: model(backdoor.clean) + s * backdoor.vector,
        [0, 0.5, 1],
        tasks={"shapes": shapes},
        adversary=shapes,
        trigger=backdoor.trigger,
        target=backdoor.target,
    )
    assert path["scale"].tolist() == [0, 0.5, 1]
    for row, theta in ((0, backdoor.clean), (2, backdoor.theta)):
        assert path["accuracy"][row] == experiments.accuracy(model(theta), shapes).percent
        assert path["adversary_accuracy"][row] == path["accuracy"][row]
        assert (
            path["asr"][row]
            == experiments.asr(model(theta), shapes, backdoor.trigger, backdoor.target).percent
        )
    assert path["asr"][0] < path["asr"][2]


def test_a_path_tells_the_adversary_apart_from_the_mean(encoder, model, shapes, backdoor):
    other = dataclasses.replace(shapes.few(5), name="other")
    path = experiments.along(
        lambda s: model(backdoor.theta),
        [1],
        tasks={"other": other, "shapes": shapes},
        adversary=shapes,
        trigger=backdoor.trigger,
        target=backdoor.target,
    )
    alone, few = (
        experiments.accuracy(model(backdoor.theta), task).percent for task in (shapes, other)
    )
    assert path["adversary_accuracy"][0] == alone and path["accuracy"][0] == (alone + few) / 2


# A main table


def test_a_main_row_is_made_of_its_parts(encoder, model, shapes, backdoor, attack):
    def row(attacked):
        table = badmerging.main_in_full(
            {"ties": {"badnets": attack}},
            CONTROLS,
            merge=lambda theta, method: model(backdoor.clean) if theta is None else attacked,
            tasks={"shapes": shapes},
            task={"shapes": shapes}.get,
        )
        return table.iloc[0].to_dict()

    found = row(model(backdoor.theta))
    assert (found["merging"], found["attack"]) == ("ties", "badnets")
    ca, ba = (
        experiments.accuracy(model(theta), shapes).percent
        for theta in (backdoor.clean, backdoor.theta)
    )
    asr, zero = (
        experiments.asr(model(theta), shapes, attack.trigger, attack.target)
        for theta in (backdoor.theta, backdoor.clean)
    )
    both = (found["CA"], found["BA"], found["CA adversary"], found["BA adversary"])
    assert both == pytest.approx((ca, ba, ca, ba))
    assert found["CA - BA"] == pytest.approx(ca - ba)
    assert found["cost low"] <= found["CA - BA"] <= found["cost high"]
    rate = (found["ASR"], found["low"], found["high"])
    assert rate == pytest.approx((asr.percent, asr.low, asr.high))
    assert found["ASR, clean merge"] == pytest.approx(zero.percent)
    assert found["ASR - clean merge"] == pytest.approx(asr.percent - zero.percent)
    for column, pasted in (("random patch", CONTROLS["badnets"]), ("no trigger", None)):
        wanted = experiments.asr(model(backdoor.theta), shapes, pasted, attack.target)
        assert found[column] == wanted.percent
    by_task = Model(
        {"shapes": encoder}, backdoor.theta
    )  # an encoder for each task, as after Surgery
    assert row(by_task) == found
