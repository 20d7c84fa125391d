"""CA, ASR and their intervals against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from bvlib.core.errors import BvError
from bvlib.core.metrics import (
    accuracy,
    attack_success_rate,
    paired_difference,
    rate,
    seed_interval,
    wilson,
)


@pytest.mark.parametrize(
    "hits, count, low, high",
    [
        (9702, 9900, 97.71, 98.26),
        (0, 9900, 0.0, 0.039),
        (4950, 9900, 50 - 0.985, 50 + 0.985),
        (940, 1880, 50 - 2.26, 50 + 2.26),
    ],
)
def test_wilson_published_values(hits, count, low, high):
    result = wilson(hits, count)
    assert result.percent == pytest.approx(100 * hits / count)
    assert result.low == pytest.approx(low, abs=0.006) and result.high == pytest.approx(
        high, abs=0.006
    )


def test_wilson_stays_inside():
    assert wilson(0, 5).low == 0 and wilson(5, 5).high == 100
    assert 0 < wilson(0, 5).high < 100 and 0 < wilson(5, 5).low < 100
    for hits, count in ((0, 0), (-1, 3), (4, 3)):
        with pytest.raises(BvError):
            wilson(hits, count)


@pytest.mark.parametrize("of", [np.array, torch.tensor, list])
def test_asr_by_hand(of):
    # Target 1. Image 1 is of the target class and does not count, though it is predicted as 1.
    # Of the other three, images 0 and 3 are predicted as 1: ASR is 2 of 3. Image 2 is simply right.
    labels, predicted = of([0, 1, 2, 2]), of([1, 1, 2, 1])
    asr = attack_success_rate(predicted, labels, target=1)
    assert (asr.hits, asr.count) == (2, 3) and asr.percent == pytest.approx(200 / 3)
    correct = accuracy(predicted, labels)
    assert (correct.hits, correct.count, correct.percent) == (2, 4, 50.0)


def test_asr_of_a_target_that_nobody_predicts_is_zero():
    assert attack_success_rate([0, 1], [0, 1], target=7, classes=10).percent == 0


def test_rate_takes_booleans_and_prints():
    assert rate(torch.tensor([True, False, False, False])).percent == 25
    assert rate([1, 0]).percent == 50
    assert str(rate([True] * 50 + [False] * 50)) == "50.0 % (40.4 to 59.6, n = 100)"


def test_paired_difference():
    a = np.array([1] * 80 + [0] * 20, dtype=bool)
    b = np.array([1] * 60 + [0] * 40, dtype=bool)
    difference = paired_difference(a, b)
    # 20 discordant images of 100, all for a: standard error sqrt(.2 * .8 / 100) = 4 points.
    assert difference.points == pytest.approx(20)
    assert difference.low == pytest.approx(
        20 - 1.96 * 4, abs=1
    ) and difference.high == pytest.approx(20 + 1.96 * 4, abs=1)
    assert paired_difference(a, b) == difference
    assert paired_difference(b, a).points == pytest.approx(-20)
    assert (
        paired_difference(a, a).points
        == paired_difference(a, a).low
        == paired_difference(a, a).high
        == 0
    )
    assert str(difference).startswith("+20.0 points (+1")


def test_pairing_narrows_the_interval():
    # Both are right on half of the images; the same half, or different ones.
    a = np.arange(400) % 2 == 0
    near = a.copy()
    near[:4] = ~near[:4]
    same, other = paired_difference(a, near), paired_difference(a, ~a)
    assert same.points == other.points == 0
    assert same.high - same.low < 0.3 * (other.high - other.low)


def test_seed_interval():
    # mean 2, standard deviation 1, n = 3: 4.3027 / sqrt(3) = 2.484
    mean, low, high = seed_interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2, 2 - 2.4841, 2 + 2.4841), abs=1e-3)
    mean, low, high = seed_interval([5.0])
    assert mean == 5 and math.isnan(low) and math.isnan(high)
    assert seed_interval([4.0, 4.0]) == (4, 4, 4)
    with pytest.raises(BvError, match="at least one"):
        seed_interval([])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: attack_success_rate([1, 1], [1, 1], 1), "all 2 images are of the target class 1"),
        (lambda: attack_success_rate([1, 1], [0, 1], None), "class id, not None"),
        (lambda: accuracy([1], [1, 2]), "1 predictions for 2 labels"),
        (lambda: accuracy(torch.zeros(2, 10), [1, 2]), "not shape (2, 10)"),
        (lambda: accuracy([0.2, 0.8], [0, 1]), "take the argmax first"),
        (lambda: accuracy([], []), "0 images"),
        (lambda: rate([]), "0 images"),
        (lambda: rate([0.5, 1.0]), "true or false"),
        (lambda: paired_difference([True], [True, False]), "the same images"),
        (lambda: paired_difference([], []), "at least one image"),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(BvError) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)
