"""Experiments: each table has its rows, its controls and its zero lines."""

import dataclasses

import numpy as np
import pytest

from bvlib.attacks import recipes, triggers
from bvlib.core.encoder import Model
from bvlib.study import experiments


@pytest.fixture
def model(encoder):
    """Weights as a model."""
    return lambda theta: Model(encoder, theta)


def test_an_asr_comes_with_its_four_controls(encoder, model, shapes, backdoor):
    control = triggers.random_patch(8, 0)
    rows = experiments.asr_rows(
        attacked=model(backdoor.theta),
        clean=model(backdoor.clean),
        base=model(encoder.theta),
        task=shapes,
        trigger=backdoor.trigger,
        control=control,
        target=backdoor.target,
    )
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
        (backdoor.theta, control),
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
def test_each_row_is_of_its_own_model(encoder, model, shapes, backdoor, role, row):
    models = {
        "attacked": model(backdoor.clean),
        "clean": model(backdoor.clean),
        "base": model(backdoor.clean),
        role: model(backdoor.theta),
    }
    rows = experiments.asr_rows(
        **models,
        task=shapes,
        trigger=backdoor.trigger,
        control=triggers.random_patch(8, 0),
        target=backdoor.target,
    )
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


def test_a_main_row_is_made_of_its_parts(encoder, model, shapes, backdoor):
    made = recipes.Backdoor(
        "badnets",
        "shapes",
        backdoor.target,
        backdoor.trigger,
        backdoor.theta,
        backdoor.vector,
        "shapes",
    )
    control, tasks = triggers.random_patch(8, 0), {"shapes": shapes}
    row = experiments.merge_row(
        model(backdoor.theta),
        model(backdoor.clean),
        made,
        tasks=tasks,
        goal=shapes,
        control=control,
    )
    ca, ba = (
        experiments.accuracy(model(theta), shapes).percent
        for theta in (backdoor.clean, backdoor.theta)
    )
    asr, zero = (
        experiments.asr(model(theta), shapes, made.trigger, made.target)
        for theta in (backdoor.theta, backdoor.clean)
    )
    assert (row["CA"], row["BA"], row["CA adversary"], row["BA adversary"]) == pytest.approx(
        (ca, ba, ca, ba)
    )
    assert (
        row["CA - BA"] == pytest.approx(ca - ba)
        and row["cost low"] <= row["CA - BA"] <= row["cost high"]
    )
    assert (row["ASR"], row["low"], row["high"]) == pytest.approx((asr.percent, asr.low, asr.high))
    assert row["ASR, clean merge"] == pytest.approx(zero.percent) and row[
        "ASR - clean merge"
    ] == pytest.approx(asr.percent - zero.percent)
    assert (
        row["random patch"]
        == experiments.asr(model(backdoor.theta), shapes, control, made.target).percent
    )
    assert (
        row["no trigger"]
        == experiments.asr(model(backdoor.theta), shapes, None, made.target).percent
    )
    known = experiments.correct(model(backdoor.clean), tasks)
    by_task = Model(
        {"shapes": encoder}, backdoor.theta
    )  # an encoder for each task, as after Surgery
    assert row == experiments.merge_row(
        by_task,
        model(backdoor.clean),
        made,
        tasks=tasks,
        goal=shapes,
        control=control,
        was_correct=known,
    )
