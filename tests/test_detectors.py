"""Neural Cleanse and Scale-Up: cases worked by hand, a planted trigger, and the clean twin as the
control."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import one_line

from bvlib.attacks import objectives, triggers
from bvlib.core import training
from bvlib.defences import detectors
from bvlib.defences.detectors import (
    anomaly_index,
    deviations,
    neural_cleanse,
    reverse_triggers,
    scale_up,
    scale_up_auroc,
)
from bvlib.worlds import tasks

# Neural Cleanse


def test_the_anomaly_index_by_hand():
    norms = [30, 10, 28, 32, 70]  # median 30; distances 0, 20, 2, 2, 40, whose median is 2
    assert deviations(norms) == pytest.approx(np.array([0, 20, 2, -2, -40]) / (1.4826 * 2))
    assert anomaly_index(norms) == pytest.approx(6.745, abs=1e-3)
    assert anomaly_index([30, 28, 32, 70, 31]) == pytest.approx(
        3 / 1.4826
    )  # the large one does not count
    assert anomaly_index([5, 5, 5, 1]) == math.inf and anomaly_index([5, 5, 5, 9]) == 0


def test_an_index_needs_three_finite_norms():
    for norms in ([1, 2], [1, 2, float("nan")]):
        with one_line("three labels"):
            anomaly_index(norms)


def test_the_weight_of_the_norm_follows_success_and_the_smallest_success_is_kept():
    search, kept, costs = detectors._Search(1, 0.001, patience=2, settle=3), [], []
    for rate, size in [
        (0.5, 9),
        (1, 8),
        (0.99, 7),
        (1, 6),
        (1, 5),
        (0.9, 2),
        (1, 6),
        (0.9, 3),
        (0.9, 3),
    ]:
        search.judge(0, rate >= 0.99, triggers.solid(size))
        kept.append(search.best[0].size)
        costs.append(float(search.cost[0]))
    assert kept == [9, 8, 7, 6, 5, 5, 5, 5, 5]
    assert costs == pytest.approx([0, 0, 0.001, 0.001, 0.002, 0.002, 0.002, 0.002, 0.002 / 2**1.5])
    assert search.converged == [True]  # w went up and down, and 5 stood for four rounds


def test_a_search_has_converged_when_the_norm_stopped_falling_and_w_went_both_ways():
    search = detectors._Search(2, 0.001, patience=1, settle=2)
    rounds = [(1, 8, 1, 8), (0, 8, 1, 8), (1, 7, 1, 8), (1, 7, 1, 8), (1, 7, 1, 8)]
    told = []
    for rate, size, other, same in rounds:
        search.judge(0, bool(rate), triggers.solid(size))
        search.judge(1, bool(other), triggers.solid(same))
        told.append(search.converged)
    # the first fell in the third round; w of the second was never lowered
    assert told == [[False, False]] * 4 + [[True, False]]


@pytest.mark.parametrize(
    "rounds",
    [
        [(0, 500)] * 3 + [(1, 480)] * 2 + [(0, 470)] * 30,  # reached twice, then w only falls
        [(0, 500)] * 2 + [(1, 480)] * 4 + [(0, 480)] * 2 + [(1, 470 * 0.991**k) for k in range(60)],
    ],
    ids=["w never raised since it left 0", "a fall by 0.9 % a round"],
)
def test_a_search_has_not_converged(rounds):
    search = detectors._Search(1, 0.001, patience=2, settle=10)
    for rate, norm in rounds:
        search.judge(0, bool(rate), SimpleNamespace(mask=torch.tensor(float(norm))))
        assert search.converged == [False]


def test_the_search_ends_when_all_have_converged(encoder, head, shapes, backdoor, monkeypatch):
    """The same result as with fewer steps; a label that has not converged is told."""
    images, rounds = shapes.dev.images, []
    monkeypatch.setattr(
        detectors._Search, "converged", property(lambda self: [len(rounds) >= 4] * 2)
    )
    judge = detectors._Search.judge
    monkeypatch.setattr(detectors._Search, "judge", lambda *a: rounds.append(1) or judge(*a))
    how = {"batch": 4, "every": 2}
    run = (encoder, backdoor.theta, head, images, [2, 3])
    long, settled = reverse_triggers(*run, steps=100, **how)
    assert len(rounds) == 4 and settled == [True, True]  # two rounds of two labels
    rounds.clear()
    short, _ = reverse_triggers(*run, steps=4, **how)
    assert torch.equal(long[0].mask, short[0].mask)


def test_a_label_that_has_converged_is_left_alone(encoder, head, shapes, backdoor, monkeypatch):
    """The other goes on as it would have, with the batches that it would have seen."""
    images, judged = shapes.dev.images, []
    judge = detectors._Search.judge

    def noted(search, i, *found):
        judged.append(i)
        judge(search, i, *found)

    run = (encoder, backdoor.theta, head, images, [2, 3])
    how = {"steps": 8, "batch": 4, "every": 2}
    whole, _ = reverse_triggers(*run, **how)
    monkeypatch.setattr(detectors._Search, "judge", noted)
    done = property(lambda self: [judged.count(0) >= 2, False])
    monkeypatch.setattr(detectors._Search, "converged", done)
    found, settled = reverse_triggers(*run, **how)
    assert judged == [0, 1, 0, 1, 1, 1] and settled == [True, False]
    torch.testing.assert_close(found[1].mask, whole[1].mask, rtol=1e-3, atol=1e-3)
    judged.clear()
    early, _ = reverse_triggers(*run, **{**how, "steps": 4})
    torch.testing.assert_close(found[0].mask, early[0].mask)


def test_a_share_is_reached_as_counting_all_images_would_say(monkeypatch):
    """With no more images looked at than it takes, 100 at a time."""
    answers = torch.ones(250, dtype=torch.int64)
    answers[:3] = 0  # three of the first hundred miss
    seen = []

    def predict(theta, part, *_):
        seen.append(len(part))
        return part

    how = (SimpleNamespace(predict=predict), {}, None, answers, None, 1)
    for threshold in (0.98, 0.988, 0.989, 0.999):
        share = float((answers == 1).double().mean())
        assert detectors._reaches(*how, threshold) == (share >= threshold)
    assert seen == [100, 100, 50] * 2 + [100] * 2


def test_reversed_triggers_are_reproducible_and_do_not_depend_on_the_other_labels(
    encoder, head, shapes, backdoor
):
    def reverse(classes):
        return reverse_triggers(
            encoder, backdoor.theta, head, shapes.dev.images, classes, steps=4, batch=4, every=2
        )

    (pair, settled), (again, _), (alone, _) = reverse([2, 3]), reverse([2, 3]), reverse([3])
    assert settled == [False, False]
    assert all(
        torch.equal(a.mask, b.mask) and torch.equal(a.patch, b.patch) for a, b in zip(pair, again)
    )
    torch.testing.assert_close(pair[1].mask, alone[0].mask, rtol=1e-3, atol=1e-3)
    assert pair[0].mask.shape == (1, 32, 32) and pair[0].patch.shape == (3, 32, 32)
    assert all(t.min() >= 0 and t.max() <= 1 for t in (pair[0].mask, pair[0].patch))


def test_the_label_of_a_planted_trigger_needs_the_smallest_mask(encoder, head, shapes, backdoor):
    """Also smaller than on the clean twin, where the same label needs as much as any other."""
    how = {"steps": 80, "batch": 16}
    table = neural_cleanse(
        encoder, backdoor.theta, head, shapes.dev.images, classes=[1, backdoor.target, 6], **how
    )
    (twin,), _ = reverse_triggers(
        encoder, backdoor.clean, head, shapes.dev.images, [backdoor.target], **how
    )
    assert list(table) == ["class", "norm", "rate", "converged", "deviation", "flagged"]
    norms = table.set_index("class")["norm"]
    assert norms[backdoor.target] < 0.7 * min(norms[1], norms[6], float(twin.mask.sum()))


@pytest.mark.slow
def test_a_planted_badnets_is_flagged_and_its_clean_twin_is_not(encoder):
    """A white patch of 4 × 4 px; the clean twin sees the same batches."""
    task, target = tasks.load("shapes", {"train": 1024, "dev": 110, "test": 11}), 3
    head = encoder.head(task.classnames, task.prompts)

    def judged(objective):
        theta = training.finetune(
            encoder,
            encoder.theta,
            head,
            task.train.images,
            task.train.labels,
            objective,
            steps=60,
            batch=64,
            warmup=5,
            lr=5e-4,
        )
        return neural_cleanse(encoder, theta, head, task.dev.images, steps=150, batch=16)

    planted, clean = (
        judged(objectives.poisoned(triggers.solid(4), target)),
        judged(training.clean()),
    )
    assert list(planted["class"][planted["flagged"]]) == [target] and planted["norm"][target] < 16
    assert not clean["flagged"].any() and clean["norm"][target] > 2 * planted["norm"][target]
    assert (planted["rate"] >= 99).all()


def test_what_neural_cleanse_cannot_do_is_one_line(encoder, head, shapes, backdoor):
    def reverse(images=shapes.dev.images, classes=(0,), **how):
        return reverse_triggers(encoder, backdoor.theta, head, images, classes, **how)

    for words, arguments in (
        ("clean images", {"images": shapes.dev.images[:0]}),
        ("class 11", {"classes": [3, 11]}),
        ("take more steps", {"steps": 5}),
    ):
        with one_line(words):
            reverse(**arguments)
    with one_line("three labels"):
        neural_cleanse(encoder, backdoor.theta, head, shapes.dev.images, classes=[0, 1])


# Scale-Up


class Bright:
    """A stand-in for an encoder: class 1 where the mean pixel is above one half."""

    def predict(self, theta, images, head, trigger=None):
        x = images.permute(0, 3, 1, 2).float() / 255
        return ((x if trigger is None else trigger.paste(x)).mean((1, 2, 3)) > 0.5).long()


def test_consistency_by_hand():
    images = torch.tensor([51, 255, 0], dtype=torch.uint8)[:, None, None, None].expand(
        3, 4, 4, 3
    )  # 0.2, 1, 0
    assert scale_up(Bright(), None, None, images).tolist() == pytest.approx(
        [2 / 11, 1, 1]
    )  # 0.2 and 0.4 stay below
    pasted = scale_up(Bright(), None, None, images, triggers.solid(4, value=0.2))
    assert pasted.tolist() == pytest.approx([2 / 11] * 3)  # the trigger is pasted before scaling


def test_a_bright_patch_stays_consistent(encoder, head, shapes, backdoor):
    scores = [
        scale_up(encoder, backdoor.theta, head, shapes.test.images, t)
        for t in (None, backdoor.trigger)
    ]
    assert scores[1].mean() > 0.9 > 0.5 > scores[0].mean() and scale_up_auroc(*scores) > 0.8


def test_auroc():
    scores = torch.tensor([0.1, 0.5, 0.5, 0.9])
    assert scale_up_auroc(scores, scores) == 0.5
    assert scale_up_auroc(torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.4])) == 1
    assert scale_up_auroc(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.4])) == 0.75
    with one_line("clean and triggered scores", "0"):
        scale_up_auroc(scores, scores[:0])
