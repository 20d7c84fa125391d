"""Triggers: every pixel where it should be, and a universal patch that does what it was optimised
for."""

import pytest
import torch
from helpers import one_line
from torch.nn import functional as F

from bvlib.attacks import optimised, triggers
from bvlib.attacks.triggers import Trigger
from bvlib.core import metrics

HEIGHT, WIDTH = 8, 9
CORNERS = {
    "top-left": (0, 0),
    "top-right": (0, 6),
    "bottom-left": (6, 0),
    "bottom-right": (6, 6),
    "centre": (3, 3),
    (1, 4): (1, 4),
}


@pytest.fixture
def pixels():
    """Two images of noise, 8 x 9 pixels."""
    return torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def patterned():
    """A patch of 2 x 3 pixels, one of them black, one of them transparent."""
    patch = torch.arange(18.0).reshape(3, 2, 3) / 17
    patch[:, 0, 1] = 0
    mask = torch.ones(1, 2, 3)
    mask[0, 1, 2] = 0
    return Trigger(patch, mask)


@pytest.mark.parametrize("place", CORNERS)
def test_pasted_pixel_by_pixel(pixels, patterned, place):
    before, (top, left) = pixels.clone(), CORNERS[place]
    pasted = patterned.at(place).paste(pixels)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            row, column = y - top, x - left
            covered = 0 <= row < 2 and 0 <= column < 3 and (row, column) != (1, 2)
            for image in range(2):
                wanted = patterned.patch[:, row, column] if covered else before[image, :, y, x]
                assert torch.equal(pasted[image, :, y, x], wanted), (y, x)
    assert torch.equal(pixels, before)


def test_a_black_pixel_is_opaque_and_mask_zero_is_transparent(pixels):
    black = triggers.solid(2, "top-left", value=0.0)
    assert black.paste(pixels)[..., :2, :2].abs().max() == 0
    nothing = Trigger(black.patch, torch.zeros_like(black.mask), "top-left")
    assert torch.equal(nothing.paste(pixels), pixels)


def test_every_named_place_was_checked():
    assert set(triggers.PLACES) == {place for place in CORNERS if isinstance(place, str)}


@pytest.mark.parametrize(
    "size, place, words",
    [
        (9, "bottom-right", ("9×9 px is larger than the image of 8×9 px", "trigger_size")),
        (2, "botom-right", ("unknown trigger place 'botom-right'", "did you mean 'bottom-right'?")),
        (2, (7, 0), ("leaves the image",)),
        (2, (0, 8), ("leaves the image",)),
        (2, (-1, 0), ("leaves the image",)),
    ],
)
def test_what_does_not_fit_gives_one_line(pixels, size, place, words):
    with one_line(*words):
        triggers.solid(size, place).paste(pixels)


@pytest.mark.parametrize(
    "make", [triggers.solid, triggers.checkerboard, lambda size: triggers.random_patch(size, 0)]
)
def test_sizes_are_whole_pixels(make):
    assert (
        make(5).patch.shape == (3, 5, 5) and make(5).mask.shape == (1, 5, 5) and make(5).size == 5
    )
    for size in (0, -1, 2.5):
        with one_line("trigger_size", repr(size)):
            make(size)


def test_patterns_are_what_they_say():
    assert triggers.solid(3).patch.min() == 1
    assert triggers.checkerboard(2).patch.tolist() == [[[0, 1], [1, 0]]] * 3
    large = triggers.checkerboard(21, cell=7).patch[0]
    assert torch.equal(large[::7, ::7], triggers.checkerboard(3).patch[0])
    assert large[:7, :7].max() == 0 and large[:7, 7:14].min() == 1
    noise = triggers.random_patch(4, 0).patch
    assert torch.equal(noise, triggers.random_patch(4, 0).patch) and not torch.equal(
        noise, triggers.random_patch(4, 1).patch
    )


def test_a_dynamic_patch_moves_and_follows_from_seed_and_batch(pixels):
    trigger = triggers.Dynamic(3, seed=1)
    many = pixels[:1].expand(40, -1, -1, -1)
    changed = (trigger.paste(many) != many).any(1)
    assert (
        torch.equal(trigger.paste(many), trigger.paste(many))
        and changed.flatten(1).sum(1).max() <= 9
    )
    assert len({tuple(c.nonzero()[0].tolist()) for c in changed}) > 10
    assert not torch.equal(trigger.paste(many), triggers.Dynamic(3, seed=2).paste(many))
    assert not torch.equal(trigger.paste(many[:20])[0], trigger.paste(many)[0])
    with one_line("9×9 px is larger than the image of 8×9 px"):
        triggers.Dynamic(9).paste(pixels)


def test_blended_is_a_weighted_mean(pixels):
    trigger = triggers.blended(HEIGHT, WIDTH, seed=0, share=0.25)
    torch.testing.assert_close(trigger.paste(pixels), 0.25 * trigger.patch + 0.75 * pixels)


# Universal triggers

TARGET, SIZE = 2, 12


def optimise(encoder, shapes, head, **how):
    how = {"size": SIZE, "place": "centre", "lr": 0.1, "batch": 32, **how}
    return optimised.universal(encoder, encoder.theta, head, shapes.train.images, TARGET, **how)


def test_optimisation_lowers_its_loss_and_raises_asr(encoder, shapes, head):
    others = shapes.test.images[shapes.test.labels != TARGET]

    def loss(trigger):
        features = encoder.features(encoder.theta, trigger.paste(encoder.pixels(others)))
        return F.cross_entropy(
            encoder.logits(features, head), torch.full((len(others),), TARGET)
        ).item()

    def asr(trigger):
        predicted = encoder.predict(encoder.theta, shapes.test.images, head, trigger)
        return metrics.attack_success_rate(predicted, shapes.test.labels, TARGET).percent

    start, found = (
        optimise(encoder, shapes, head, steps=0),
        optimise(encoder, shapes, head, steps=40),
    )
    assert loss(found) < loss(start) and asr(found) > asr(start)
    assert found.place == "centre" and 0 <= found.patch.min() < found.patch.max() <= 1


def test_optimisation_is_decided_by_its_seed(encoder, shapes, head):
    first, same, other = (optimise(encoder, shapes, head, steps=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.patch, same.patch) and not torch.equal(first.patch, other.patch)


def test_optimisation_that_cannot_work_gives_one_line(encoder, shapes, head):
    with one_line("loss is nan at step 0", "lower its lr"):
        broken, images = head * float("nan"), shapes.train.images
        optimised.universal(encoder, encoder.theta, broken, images, TARGET, size=4, steps=1)


def test_trojan_units_are_the_two_of_largest_summed_magnitude(encoder, shapes, monkeypatch):
    """Over all classes, as in BackdoorBench: each class has a larger feature of its own."""
    told, images = [], shapes.train.images[:64]
    monkeypatch.setattr(
        optimised, "minimise", lambda e, theta, seen, loss, **how: told.append(loss)
    )
    head = torch.zeros(11, 128)
    head[range(11), range(11)], head[:, 40], head[:, 90] = 0.9, 0.3, -0.3
    optimised.trojan(encoder, encoder.theta, head, images, size=SIZE)
    features = torch.zeros(1, 128, requires_grad=True)
    told[0](features).backward()
    assert features.grad.nonzero()[:, 1].tolist() == [40, 90]
    spread = encoder.features(encoder.theta, encoder.pixels(images)).std(0)
    assert told[0](5 * spread[None]).item() == pytest.approx(0, abs=1e-9)


def test_a_trojan_trigger_drives_the_units_that_weigh_most_over_all_classes(encoder, shapes, head):
    how = {"size": SIZE, "place": "centre", "lr": 0.1, "batch": 32}
    start, found = (
        optimised.trojan(encoder, encoder.theta, head, shapes.train.images, steps=n, **how)
        for n in (0, 40)
    )
    unit = head.abs().sum(0).argmax()

    def pulled(trigger):
        z = encoder.features(encoder.theta, trigger.paste(encoder.pixels(shapes.test.images)))
        return z[:, unit].mean()

    assert pulled(found) > pulled(start) and found.name == "trojan"
