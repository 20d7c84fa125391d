"""PGD and the augmentation of the off-task attack: how far pixels move, where to, and what is
kept."""

from types import SimpleNamespace

import torch
from helpers import one_line

from bvlib.attacks import adversarial
from bvlib.attacks.adversarial import pgd, pushed_away


def predicted(encoder, head, pixels):
    return encoder.logits(encoder.features(encoder.theta, pixels), head).argmax(-1)


def test_pgd_leaves_the_label_within_its_bound(encoder, shapes, head):
    pixels, labels = encoder.pixels(shapes.test.images[:16]), shapes.test.labels[:16]
    moved = pgd(encoder, encoder.theta, head, pixels, labels, eps=16 / 255, step=4 / 255, steps=10)
    assert (moved - pixels).abs().max() <= 16 / 255 + 1e-6 and moved.min() >= 0 and moved.max() <= 1
    assert (predicted(encoder, head, moved) == labels).sum() < (
        predicted(encoder, head, pixels) == labels
    ).sum()
    assert torch.equal(pgd(encoder, encoder.theta, head, pixels, labels, steps=0), pixels)


def test_toward_a_label_the_smallest_success_is_kept_and_else_the_image(encoder, shapes, head):
    pixels = encoder.pixels(shapes.test.images[:16])
    goals = (predicted(encoder, head, pixels) + 1) % len(head)
    near, far = (
        pgd(encoder, encoder.theta, head, pixels, goals, toward=True, steps=steps)
        for steps in (10, 40)
    )
    for moved in (near, far):
        reached = predicted(encoder, head, moved) == goals
        assert torch.equal(moved[~reached], pixels[~reached])
    both = (predicted(encoder, head, near) == goals) & (predicted(encoder, head, far) == goals)
    change = [(moved - pixels).abs().flatten(1).sum(1)[both] for moved in (near, far)]
    assert both.any() and (change[1] <= change[0]).all()


def test_augmented_references_are_taken_for_the_target_less_often(encoder, shapes, head):
    order = torch.cat([torch.tensor([3]), torch.tensor([i for i in range(11) if i != 3])])
    references = shapes.train.images[shapes.train.labels == 3][:5]
    pushed = pushed_away(encoder, encoder.theta, head[order], references, count=20)
    plain = pushed_away(encoder, encoder.theta, head[order], references, count=20, steps=0)
    assert pushed.shape == (20, 3, 32, 32) and pushed.min() >= 0 and pushed.max() <= 1
    assert (predicted(encoder, head[order], pushed) == 0).sum() < (
        predicted(encoder, head[order], plain) == 0
    ).sum()
    assert torch.equal(
        pushed, pushed_away(encoder, encoder.theta, head[order], references, count=20)
    )


def test_a_crop_is_pushed_toward_any_shadow_class_but_its_own(monkeypatch):
    """Seen as the target: all shadow classes, the last one too; seen as a shadow class: the
    others."""
    goals = {}

    def told(encoder, theta, head, crops, labels, **how):
        goals[encoder.seen] = labels
        return crops

    monkeypatch.setattr(adversarial, "pgd", told)
    for seen in (0, 2, 4):
        encoder = SimpleNamespace(
            seen=seen,
            pixels=lambda images: images.permute(0, 3, 1, 2).float() / 255,
            features=lambda theta, x: x,
            logits=lambda x, head, seen=seen: torch.eye(5)[[seen] * len(x)],
        )
        images = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
        pushed_away(encoder, {}, torch.zeros(5, 2), images, count=200)
    counts = {seen: torch.bincount(each, minlength=5) for seen, each in goals.items()}
    assert counts[0][0] == 0 and counts[0][1:].min() > 30
    assert counts[2][[0, 2]].sum() == 0 and counts[2][[1, 3, 4]].min() > 40
    assert counts[4][[0, 4]].sum() == 0 and counts[4][1:4].min() > 40


def test_without_references_or_shadow_classes_there_is_one_line(encoder, shapes, head):
    with one_line("reference images of the target class", "none in train"):
        pushed_away(encoder, encoder.theta, head, shapes.train.images[:0])
    with one_line("two shadow classes or more", "the head has 1"):
        pushed_away(encoder, encoder.theta, head[:2], shapes.train.images[:1])
