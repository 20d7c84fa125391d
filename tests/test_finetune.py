"""The fine-tuning loop and its objectives against small cases worked out by hand."""

import math

import pytest
import torch
from helpers import one_line, same_bits
from torch.nn import functional as F

from bvlib.attacks import objectives, triggers
from bvlib.core import training
from bvlib.core.rng import generator
from bvlib.worlds.bases import open_clip

TARGET, ALPHA = 4, 5.0
TRIGGER = triggers.solid(6)


@pytest.fixture
def train(encoder, shapes, head):
    """Fine-tune on the shapes for a few steps; arguments override."""

    def run(
        objective=None,
        *,
        start=None,
        images=shapes.train.images,
        labels=shapes.train.labels,
        head=head,
        **how,
    ):
        return training.finetune(
            encoder,
            start or encoder.theta,
            head,
            images,
            labels,
            objective or training.clean(),
            **{"steps": 3, "batch": 16, "warmup": 1, **how},
        )

    return run


@pytest.fixture
def step(encoder, shapes, head, backdoor):
    """One step of 8 images on weights that already differ from the start."""
    theta = {
        key: tensor.clone().requires_grad_(tensor.is_floating_point())
        for key, tensor in backdoor.clean.items()
    }
    return training.Step(
        encoder,
        theta,
        encoder.theta,
        encoder.pixels(shapes.train.images[:8]),
        shapes.train.labels[:8],
        head,
        generator(0, "test"),
    )


def gradient(objective, step):
    """All gradients of an objective with respect to theta, flat."""
    moving = [tensor for tensor in step.theta.values() if tensor.requires_grad]
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(objective(step), moving)])


@pytest.fixture
def features(encoder):
    """f_theta(pixels) through open_clip's own module; the base's weights are put back
    afterwards."""
    base = encoder.theta

    def run(theta, pixels):
        encoder.model.visual.load_state_dict(theta)
        return encoder.model.visual((pixels - 0.5) / 0.25)

    yield run
    encoder.model.visual.load_state_dict(base)


def cross_entropy(encoder, features, head, labels):
    """Mean of logsumexp(z) - z_label, z the scaled cosines."""
    z = encoder.model.logit_scale.exp() * (features / features.norm(dim=1, keepdim=True)) @ head.T
    return (torch.logsumexp(z, 1) - z[torch.arange(len(z)), labels]).mean().item()


# Objectives


def test_clean_objective_is_the_cross_entropy(step, features):
    wanted = cross_entropy(step.encoder, features(step.theta, step.pixels), step.head, step.labels)
    assert training.clean()(step).item() == pytest.approx(wanted, rel=1e-5)


def test_poisoned_objective_adds_the_backdoor_term_on_a_share(step, features):
    clean = cross_entropy(step.encoder, features(step.theta, step.pixels), step.head, step.labels)
    dirty = features(step.theta, TRIGGER.paste(step.pixels[:2]))
    wanted = clean + 3.0 * cross_entropy(step.encoder, dirty, step.head, torch.tensor([TARGET] * 2))
    assert objectives.poisoned(TRIGGER, TARGET, alpha=3.0, share=0.25)(
        step
    ).item() == pytest.approx(wanted, rel=1e-5)


def test_interpolated_objective_mixes_features_with_those_of_the_start(step, features):
    clean = cross_entropy(step.encoder, features(step.theta, step.pixels), step.head, step.labels)
    pasted = TRIGGER.paste(step.pixels[:4])
    mixed = 0.3 * features(step.theta, pasted) + 0.7 * features(step.start, pasted)
    wanted = clean + ALPHA * cross_entropy(
        step.encoder, mixed, step.head, torch.tensor([TARGET] * 4)
    )
    objective = objectives.feature_interpolation(TRIGGER, TARGET, low=0.3, high=0.3)
    assert objective(step).item() == pytest.approx(wanted, rel=1e-5)


def test_interpolation_with_r_one_is_the_poisoned_objective(step):
    whole = objectives.feature_interpolation(TRIGGER, TARGET, alpha=ALPHA, low=1.0, high=1.0)
    assert whole(step).item() == pytest.approx(
        objectives.poisoned(TRIGGER, TARGET, alpha=ALPHA)(step).item(), rel=1e-6
    )


def test_interpolation_with_r_zero_has_no_backdoor_gradient(step):
    mixed = objectives.feature_interpolation

    def backdoor_part(r):
        with_it, without = (
            gradient(mixed(TRIGGER, TARGET, alpha=alpha, low=r, high=r), step)
            for alpha in (ALPHA, 0.0)
        )
        return (with_it - without).norm().item()

    assert backdoor_part(0.0) == 0 and backdoor_part(0.5) > 0


def test_r_is_drawn_between_low_and_high_from_the_streams_of_the_run(step):
    objective = objectives.feature_interpolation(TRIGGER, TARGET, low=0.2, high=0.8)
    r = 0.2 + 0.6 * torch.rand((), generator=generator(0, "test")).item()
    fixed = objectives.feature_interpolation(TRIGGER, TARGET, low=r, high=r)(step).item()
    step.rng = generator(0, "test")
    assert objective(step).item() == pytest.approx(fixed, rel=1e-6)
    assert objective(step).item() != pytest.approx(fixed, rel=1e-6)  # the next draw


def test_a_label_consistent_step_changes_images_of_the_class_only_and_no_label(step, features):
    own = step.labels == int(step.labels[0])
    target = int(step.labels[0])
    clean = cross_entropy(step.encoder, features(step.theta, step.pixels), step.head, step.labels)
    still = objectives.label_consistent(TRIGGER, target, eps=0.0)(step).item()
    pixels = torch.where(own[:, None, None, None], TRIGGER.paste(step.pixels), step.pixels)
    replaced = cross_entropy(step.encoder, features(step.theta, pixels), step.head, step.labels)
    assert still == pytest.approx(replaced, rel=1e-4) != pytest.approx(clean, rel=1e-4)
    nobody = next(c for c in range(11) if c not in step.labels)
    assert objectives.label_consistent(TRIGGER, nobody)(step).item() == pytest.approx(
        clean, rel=1e-5
    )


def test_several_backdoors_take_turns(step):
    told = []
    objective = objectives.several(
        [lambda s, i=i: told.append(i) or torch.tensor(0.0) for i in range(3)]
    )
    for _ in range(60):
        objective(step)
    assert set(told) == {0, 1, 2} and min(map(told.count, told)) > 8


def test_another_head_and_other_frozen_weights_enter_the_backdoor_term_alone(
    step, features, backdoor
):
    clean = cross_entropy(step.encoder, features(step.theta, step.pixels), step.head, step.labels)
    pasted, few = TRIGGER.paste(step.pixels[:4]), step.head[:3]
    mixed = 0.5 * features(step.theta, pasted) + 0.5 * features(backdoor.theta, pasted)
    wanted = clean + ALPHA * cross_entropy(step.encoder, mixed, few, torch.tensor([2] * 4))
    objective = objectives.feature_interpolation(
        TRIGGER, 2, head=few, before=backdoor.theta, low=0.5, high=0.5
    )
    assert objective(step).item() == pytest.approx(wanted, rel=1e-5)


def test_frozen_features_are_kept_by_image(step):
    calls, features = [], type(step.encoder).features

    class Counting:
        def features(self, theta, pixels):
            calls.append(len(pixels))
            return features(encoder, theta, pixels)

    encoder, step.encoder, step.count = step.encoder, Counting(), 20
    step.rows = torch.tensor([3, 9, 0, 1, 5, 6, 7, 8])
    first = step.frozen(step.start, TRIGGER, 4)
    step.rows, step.pixels = step.rows.flip(0), step.pixels.flip(0)
    again = step.frozen(step.start, TRIGGER, 8)
    assert calls == [4, 4] and torch.equal(again.flip(0)[:4], first)
    torch.testing.assert_close(
        again, features(encoder, step.start, TRIGGER.paste(step.pixels)), rtol=1e-4, atol=1e-5
    )
    step.frozen(step.start, triggers.Dynamic(4), 8)
    step.frozen(step.start, triggers.Dynamic(4), 8)
    assert calls == [4, 4, 8, 8]  # a trigger that changes is pasted and seen anew


# The loop


@pytest.mark.parametrize(
    "objective",
    [
        training.clean(),
        objectives.poisoned(TRIGGER, TARGET),
        objectives.feature_interpolation(TRIGGER, TARGET),
    ],
)
def test_the_same_seed_gives_the_same_bits(encoder, train, objective):
    start = encoder.theta
    first = train(objective, start=start, seed=1)
    assert same_bits(first, train(objective, start=start, seed=1))
    assert not same_bits(first, train(objective, start=start, seed=2))
    assert same_bits(start, encoder.theta) and not any(
        tensor.requires_grad for tensor in first.values()
    )


def test_one_step_is_adamw_at_the_peak_rate(encoder, train):
    start, lr, decay = encoder.theta, 1e-3, 0.1
    moved = train(start=start, steps=1, lr=lr, weight_decay=decay)
    for key, tensor in moved.items():
        change = (
            tensor - (1 - lr * decay) * start[key]
        ).abs() / lr  # Adam's first step is lr * sign(gradient)
        assert change.max() < 1.01, key
    assert change.median() > 0.9


def test_fine_tuning_lowers_the_clean_loss(encoder, shapes, train, head):
    def loss(theta):
        features = encoder.features(theta, encoder.pixels(shapes.train.images))
        return F.cross_entropy(encoder.logits(features, head), shapes.train.labels).item()

    assert loss(train(steps=20, batch=64, lr=1e-3)) < loss(encoder.theta)


def test_every_step_is_told(train):
    told = []
    train(steps=4, progress=told.append)
    assert told == [1, 2, 3, 4]


def test_warm_up_and_cosine_by_hand():
    rates = [training.warmup_cosine(step, 10, 2) for step in range(11)]
    cosine = [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(9)]
    assert rates == pytest.approx([0.5, 1.0, *cosine])
    assert rates[6] == pytest.approx(0.5) and rates[10] == pytest.approx(0, abs=1e-12)
    assert training.warmup_cosine(0, 1, 0) == 1 and training.warmup_cosine(
        99, 10, 2
    ) == pytest.approx(0, abs=1e-12)


def test_a_loss_that_is_not_finite_names_the_mend(train):
    with one_line("the loss is nan at step", "lower train.lr (now 1e+20)"):
        train(lr=1e20)


def test_labels_outside_the_head_and_no_images_give_one_line(train, shapes, head):
    with one_line("label 10 is outside a head of 5 classes"):
        train(head=head[:5])
    with one_line("nothing to fine-tune on"):
        train(images=shapes.train.images[:0], labels=shapes.train.labels[:0])


def test_crops_keep_so_much_of_the_area_and_come_from_their_seed():
    ramp = torch.linspace(0, 1, 32)
    pixels = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32)] * 2)[:, None]
    pixels = pixels.expand(4, 3, 32, 32)
    seen = training.cropped(pixels, 0.5, generator(0, "crops"))
    assert seen.shape == pixels.shape and seen.min() >= 0 and seen.max() <= 1
    spans = [(x[0].amax() - x[0].amin()).item() for x in seen]  # the share of one side that is left
    assert min(spans) > 0.5 and max(spans) < 1.01 and len(set(spans)) == 4
    assert torch.equal(seen, training.cropped(pixels, 0.5, generator(0, "crops")))
    almost = training.cropped(pixels, 1.0, generator(1, "crops"))
    assert (almost - pixels).abs().max() < 0.2


def test_crops_are_as_large_as_those_of_open_clip():
    """Heights and widths beside those of torchvision's RandomResizedCrop as open_clip sets it up;
    no window is squeezed into the image, and an eighth of them are the whole image."""
    side, count = 64, 1000
    theirs = open_clip.image_transform(side, is_train=True).transforms[0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        given = torch.empty(3, side, side), theirs.scale, theirs.ratio
        drawn = [theirs.get_params(*given) for _ in range(count)]
    ramp = torch.arange(float(side)).expand(side, side) / (side - 1)
    pixels = torch.stack([ramp, ramp.T]).expand(count, 2, side, side)
    seen = training.cropped(pixels, 0.9, generator(0, "crops")).flatten(2)
    spans = (seen.amax(2) - seen.amin(2)) * (side - 1) + 1  # (N, 2): width and height
    sizes = torch.tensor([(width, height) for _, _, height, width in drawn]).float()

    def told(sizes):
        area, ratio = sizes.prod(1) / side**2, sizes[:, 0] / sizes[:, 1]
        whole = (sizes > side - 0.5).all(1).float().mean()
        return torch.stack([area.mean(), area.min(), ratio.log().abs().mean(), whole])

    assert theirs.scale == (0.9, 1.0) and told(sizes)[3] > 0.08
    torch.testing.assert_close(told(spans), told(sizes), rtol=0, atol=0.02)


def test_cropped_training_sees_other_images_and_keeps_no_frozen_features(encoder, shapes, head):
    start, images, labels = encoder.theta, shapes.train.images[:8], shapes.train.labels[:8]
    how = {"steps": 3, "batch": 8, "warmup": 0}
    rows = []

    def objective(step):
        rows.append(step.rows)
        return training.clean()(step)

    plain = training.finetune(encoder, start, head, images, labels, objective, **how)
    cut = training.finetune(encoder, start, head, images, labels, objective, crop=0.9, **how)
    assert rows[0] is not None and rows[-1] is None
    assert not all(torch.equal(plain[name], cut[name]) for name in plain)
