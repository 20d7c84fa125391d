"""Covering tokens: exact laws on encoders whose answer is known, the published rule against a slow
one, and a real backdoor."""

import copy

import pytest
import torch
from helpers import noise_images, one_line

from bvlib.attacks import triggers
from bvlib.core.encoder import Model
from bvlib.core.rng import generator
from bvlib.defences.occlusion import Occluded, majority, token_masks
from bvlib.merging.surgery import Adapter
from bvlib.study import experiments

TARGET, PATCH, TOKENS = 1, 2, 16


class ByToken:
    """A stand-in for an encoder of 8 × 8 px images in 16 tokens: its features are the tokens' mean
    values."""

    device = torch.device("cpu")

    def __init__(self, answer):
        self.answer, self.seen = answer, 0

    def pixels(self, images):
        return images

    def features(self, theta, x):
        self.seen += len(x)
        return x.mean(1).unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).mean((-2, -1)).flatten(1)

    def logits(self, features, head):
        return self.answer(features)


def attacked(tokens):
    """The target where any token is white; else class 0 for dark images and 2 for bright ones, by
    the median token."""
    bright = tokens.median(-1).values > 0.4
    return torch.stack([1.0 * ~bright, 2.0 * (tokens > 0.9).any(-1), 1.0 * bright], -1)


def decided_by_one(tokens):
    """Class 2 or 0 by the sixth token alone."""
    return torch.stack([1 - tokens[:, 5], torch.zeros(len(tokens)), tokens[:, 5]], -1)


def plain(*values):
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone()


def predict(answer, images, trigger=None, **how):
    """What the defence says, and the passes it made, which the encoder counted too."""
    defended = Occluded(ByToken(answer), patch=PATCH, **how)
    said = defended.predict(None, images, None, trigger, batch=7)
    assert defended.passes == defended.encoder.seen
    return said.tolist(), defended.passes


IMAGES, CLEAN = plain(0.2, 0.6, 0.1), [0, 2, 0]
INSIDE = triggers.solid(2)


def test_images_on_which_all_copies_agree_keep_their_class_for_one_pass_a_token():
    assert predict(attacked, IMAGES) == (CLEAN, TOKENS * len(IMAGES))


@pytest.mark.parametrize("place", [(0, 0), (2, 4), (6, 6)])
def test_a_trigger_inside_one_token_is_undone(place):
    assert predict(attacked, IMAGES, INSIDE.at(place)) == (
        CLEAN,
        (TOKENS + TOKENS - 1) * len(IMAGES),
    )


def test_a_trigger_across_tokens_is_out_of_reach():
    assert predict(attacked, IMAGES, triggers.solid(4))[0] == [TARGET] * 3


def test_a_clean_image_that_one_token_decides_is_lost():
    image = plain(0.1)
    image[:, :, 2:4, 2:4] = 0.9
    assert predict(decided_by_one, image)[0] == [0]


def test_the_cover_has_the_colour_that_was_asked_for():
    assert predict(attacked, IMAGES, colour=(1, 1, 1))[0] == [TARGET] * 3
    assert predict(attacked, IMAGES, colour=(0, 0, 0))[0] == CLEAN
    mixed = plain(0.2)
    mixed[..., :2] = 0.6  # four tokens of 16; the mean is 0.3
    seen = []
    predict(lambda tokens: seen.append(tokens) or attacked(tokens), mixed)
    covered = torch.cat(seen).view(TOKENS, TOKENS).diagonal()
    assert torch.allclose(covered, torch.full((TOKENS,), 0.3))


# Against the rule as it is written, on answers without any order


def erratic(seed, spread):
    first, second = (
        torch.randn(shape, generator=generator(seed, "erratic", str(shape)))
        for shape in ((TOKENS, 24), (24, 3))
    )
    return lambda tokens: (spread * (tokens - 0.5) @ first).tanh() @ second


def slow_double(answer, image, colour=0.5):
    """Double masking for one image (3, 8, 8), one copy at a time: its class and the copies it
    needs."""
    masks, made = token_masks(8, 8, PATCH), {}

    def said(*covered):
        if frozenset(covered) not in made:
            x = torch.where(sum(masks[c] for c in covered).bool(), torch.tensor(colour), image)
            made[frozenset(covered)] = answer(ByToken(answer).features(None, x[None]))[0]
        return int(made[frozenset(covered)].argmax())

    first = [said(t) for t in range(TOKENS)]
    most = int(
        majority(
            torch.tensor([first]), torch.stack([made[frozenset([t])] for t in range(TOKENS)])[None]
        )
    )
    found = [[said(t, other) for other in range(TOKENS)] for t in range(TOKENS) if first[t] != most]
    stood = [row[0] for row in found if len(set(row)) == 1]
    return (stood[0] if stood else most), len(made)


def random_images(count):
    return (
        torch.rand(count, 3, 4, 4, generator=generator(0, "images"))
        .repeat_interleave(2, 2)
        .repeat_interleave(2, 3)
    )


@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_two_rounds_are_those_of_the_published_rule(spread):
    images, answer = random_images(40), erratic(1, spread)
    said, passes = predict(answer, images, colour=(0.5, 0.5, 0.5))
    expected = [slow_double(answer, image) for image in images]
    assert said == [c for c, _ in expected] and passes == sum(made for _, made in expected)
    assert max(made for _, made in expected) > 31


def test_where_every_pair_of_covers_leaves_the_answer_no_trigger_in_one_token_changes_it():
    """With a cover of a fixed colour: on such images any content of any one token is without
    effect."""
    answer, masks, images = erratic(2, 0.5), token_masks(8, 8, PATCH), random_images(60)
    pairs = (masks[:, None] | masks).flatten(0, 1)
    copies = torch.where(pairs, torch.tensor(0.5), images[:, None]).flatten(0, 1)
    classes = answer(ByToken(answer).features(None, copies)).argmax(-1).view(len(images), -1)
    sure = (classes == classes[:, :1]).all(-1)
    assert 5 <= sure.sum() <= 55
    for value in (0.0, 1.0):
        for token in range(TOKENS):
            changed = torch.where(masks[token], torch.tensor(value), images[sure])
            assert predict(answer, changed, colour=(0.5, 0.5, 0.5))[0] == classes[sure, 0].tolist()


def test_ties_go_to_the_larger_summed_probability():
    logits = torch.tensor([[[2.0, 0, 0], [0, 5.0, 0]], [[5.0, 0, 0], [0, 2.0, 0]]])
    assert majority(logits.argmax(-1), logits).tolist() == [1, 0]
    logits = torch.tensor(
        [[[0.1, 0, 0], [0.1, 0, 0], [0, 0, 90.0]]]
    )  # two votes against one, however sure it is
    assert majority(logits.argmax(-1), logits).tolist() == [0]


def test_masks_share_out_the_image():
    masks = token_masks(6, 9, 3)
    assert masks.shape == (6, 1, 6, 9) and masks.dtype == torch.bool
    assert (masks.sum(0) == 1).all() and (masks.sum((1, 2, 3)) == 9).all()
    assert masks[4, 0, 3:, 3:6].all()  # row by row


# A trained backdoor, where an encoder is asked for


def test_it_stands_where_an_encoder_does(encoder, shapes, head, backdoor):
    trigger, target = backdoor.trigger, backdoor.target
    plain_asr = experiments.asr(Model(encoder, backdoor.theta), shapes, trigger, target).percent
    defended, n = Occluded(encoder), len(shapes.test)
    assert defended.patch == 8 and defended.device == encoder.device
    assert defended.scale == encoder.scale
    model = Model({"shapes": defended}, backdoor.theta)
    asr = experiments.asr(model, shapes, trigger, target).percent
    assert 16 * n < defended.passes <= 136 * n
    assert plain_asr > 90 and asr < plain_asr - 5
    assert experiments.accuracy(Model(Occluded(encoder), backdoor.theta), shapes).percent > 100 / 11


def test_with_and_without_batches_the_same(encoder, shapes, head, backdoor):
    images, said = shapes.test.images[:12], []
    for batch in (5, 500):
        defended = copy.deepcopy(Occluded(encoder))
        said.append(
            (
                defended.predict(backdoor.theta, images, head, backdoor.trigger, batch).tolist(),
                defended.passes,
            )
        )
    assert said[0] == said[1]
    empty = Occluded(encoder).predict(backdoor.theta, images[:0], head)
    assert empty.shape == (0,) and empty.dtype == torch.int64


def test_an_adapter_stays_in_place(tiny):
    encoder, head, images = tiny["encoder"], tiny["seen"]["left"].head, noise_images(6, 32, "left")
    eye = torch.eye(head.shape[1])  # z − 2·ReLU(z) + 2·ReLU(−z) = −z
    flip = Adapter(torch.cat([eye, -eye]), torch.cat([2 * eye, -2 * eye], 1))
    wrapped, x = Occluded(flip.over(encoder)), encoder.pixels(images)
    assert torch.equal(wrapped.features(encoder.theta, x), -encoder.features(encoder.theta, x))
    assert not torch.equal(
        wrapped.predict(encoder.theta, images, head),
        Occluded(encoder).predict(encoder.theta, images, head),
    )


def test_what_cannot_be_covered_is_one_line(encoder, head, shapes):
    for colour in ("grey", (1, 1)):
        with one_line("colour"):
            Occluded(encoder, colour=colour)
    with one_line("give patch"):
        Occluded(ByToken(attacked))
    for patch in (5, 32, 0):
        with one_line(f"tokens of {patch} px", "32×32"):
            Occluded(encoder, patch=patch).predict(encoder.theta, shapes.test.images[:1], head)
