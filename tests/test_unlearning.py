"""TBAR, LFPM and DAM: what must hold whatever they learn, and that they weaken a planted
backdoor."""

from dataclasses import replace

import pytest
import torch
from helpers import one_line, same_bits
from torch.nn import functional as F

from bvlib.attacks import triggers
from bvlib.core.encoder import Model
from bvlib.defences.ibvs import ibvs
from bvlib.defences.unlearning import anti_backdoor_vector, dam, trigger_vector
from bvlib.merging import Seen, see
from bvlib.study import experiments

OWN = triggers.checkerboard(4, "top-left")


@pytest.fixture(scope="module")
def merged(backdoor):
    """The backdoor at the strength that a merge leaves of it."""
    return backdoor.clean + 0.4 * backdoor.vector


@pytest.fixture(scope="module")
def model(encoder, merged):
    return Model(encoder, merged)


@pytest.fixture(scope="module")
def negation(encoder, merged, head, shapes, backdoor):
    return trigger_vector(
        encoder, merged, head, shapes.train.images[:64], backdoor.trigger, backdoor.target, steps=10
    )


@pytest.fixture(scope="module")
def seen(encoder, shapes):
    return {"shapes": Seen(shapes.train.images[:64], see(encoder, shapes).head, "train")}


@pytest.fixture(scope="module")
def cure(encoder, merged, seen):
    return anti_backdoor_vector(encoder, merged, seen, OWN, steps=15, batch=16, lr=3e-4)


def asr(model, shapes, backdoor):
    return experiments.asr(model, shapes, backdoor.trigger, backdoor.target).percent


# TBAR


def test_negation_lowers_the_asr_and_addition_raises_it(shapes, backdoor, model, negation):
    without, more, start = (asr(ibvs(model, negation, s), shapes, backdoor) for s in (0.5, -0.5, 0))
    assert more >= start > 40 and without < start - 30
    assert experiments.accuracy(ibvs(model, negation, 0.5), shapes).percent > 100 / 11


def test_a_random_vector_of_that_norm_leaves_the_backdoor(shapes, backdoor, model, negation):
    placebo = asr(ibvs(model, negation.random_like(0), 0.5), shapes, backdoor)
    assert placebo > asr(ibvs(model, negation, 0.5), shapes, backdoor) + 30


def test_the_trigger_vector_points_along_the_backdoor_vector(backdoor, negation):
    assert (
        negation.cosine(backdoor.vector)
        > 0.05
        > abs(negation.random_like(0).cosine(backdoor.vector)) * 5
    )


def test_a_trigger_vector_follows_from_its_seed_and_no_step_gives_none(
    encoder, merged, head, shapes, backdoor
):
    def vector(**how):
        return trigger_vector(
            encoder,
            merged,
            head,
            shapes.dev.images,
            backdoor.trigger,
            backdoor.target,
            batch=8,
            **how,
        )

    before = torch.get_rng_state()
    one, again, other = vector(steps=2), vector(steps=2), vector(steps=2, seed=1)
    assert same_bits(one.tensors, again.tensors) and not same_bits(one.tensors, other.tensors)
    assert vector(steps=0).norm() == 0 and torch.equal(before, torch.get_rng_state())


def test_a_trigger_vector_of_nothing_is_one_line(encoder, merged, head, shapes, backdoor):
    for target in (-1, 11):
        with one_line(f"label {target}", "11 classes"):
            trigger_vector(encoder, merged, head, shapes.dev.images, backdoor.trigger, target)
    with one_line("empty"):
        trigger_vector(encoder, merged, head, shapes.dev.images[:0], backdoor.trigger, 3)


# LFPM


@torch.no_grad()
def gap(encoder, theta, start, images, trigger=None):
    """Mean squared distance of unit features of images, with a trigger, from those of the start
    without."""
    x = encoder.pixels(images)
    goal = F.normalize(encoder.features(start, x), dim=-1)
    found = F.normalize(encoder.features(theta, x if trigger is None else trigger.paste(x)), dim=-1)
    return float((found - goal).square().sum(-1).mean())


def test_images_with_the_defenders_trigger_come_nearer_to_those_without(
    encoder, shapes, model, merged, cure
):
    images, cured = shapes.test.images, ibvs(model, -cure, 1).theta
    before, after = (gap(encoder, theta, merged, images, OWN) for theta in (merged, cured))
    assert after < 0.8 * before and gap(encoder, cured, merged, images) < before


def test_the_cure_lowers_the_asr_of_a_trigger_it_never_saw_and_a_random_vector_does_not(
    shapes, backdoor, model, cure
):
    start, cured, placebo = (
        asr(each, shapes, backdoor)
        for each in (model, ibvs(model, -cure, 1), ibvs(model, -cure.random_like(0), 1))
    )
    assert cured < start - 15 and placebo > start - 10


def test_keeping_the_features_of_clean_images_is_a_matter_of_weight(encoder, shapes, merged, seen):
    far = [
        gap(
            encoder,
            merged
            + anti_backdoor_vector(
                encoder, merged, seen, OWN, steps=6, batch=16, lr=3e-4, keep=keep
            ),
            merged,
            shapes.test.images,
        )
        for keep in (0.0, 10.0)
    ]
    assert far[1] < far[0]


def test_a_cure_follows_from_its_seed_and_leaves_the_trigger_alone(encoder, merged, seen):
    own, how = replace(OWN, patch=OWN.patch.clone()), {"steps": 2, "batch": 4}
    one, again = (anti_backdoor_vector(encoder, merged, seen, own, **how) for _ in range(2))
    other, fixed = (
        anti_backdoor_vector(encoder, merged, seen, own, **how, **more)
        for more in ({"seed": 1}, {"prompt_steps": 0})
    )
    assert same_bits(one.tensors, again.tensors)
    assert not same_bits(one.tensors, other.tensors) and not same_bits(one.tensors, fixed.tensors)
    assert torch.equal(own.patch, OWN.patch) and not own.patch.requires_grad


def test_what_lfpm_refuses_is_one_line(encoder, merged, seen, shapes):
    with one_line("no images"):
        anti_backdoor_vector(encoder, merged, {}, OWN)
    with one_line("'shapes'", "test"):
        anti_backdoor_vector(encoder, merged, {"shapes": see(encoder, shapes, "test")}, OWN)
    with one_line("must be a patch", "Dynamic"):
        anti_backdoor_vector(encoder, merged, seen, triggers.Dynamic(4))
    with one_line("larger than the image"):
        anti_backdoor_vector(encoder, merged, seen, triggers.checkerboard(40))


# DAM


def start_of(tiny, init=0.3):
    return tiny["base"] + init * (tiny["vectors"]["left"] + tiny["vectors"]["right"])


def run_dam(tiny, **how):
    made = dam(
        tiny["vectors"],
        encoder=tiny["encoder"],
        base=tiny["base"],
        seen=tiny["seen"],
        **{"steps": 3, "batch": 4, **how},
    )
    assert made.encoder is tiny["encoder"]
    return made.theta


def test_no_step_gives_the_plain_merge(tiny):
    for init in (0.3, 0.5):
        made = run_dam(tiny, steps=0, init=init)
        assert made.keys() == tiny["base"].keys()
        for key, tensor in start_of(tiny, init).items():
            torch.testing.assert_close(made[key], tensor)


def test_one_mask_for_all_tasks_with_mean_1(tiny):
    """With the coefficients held, what is left of the plain merge is the mask: positive, of mean
    1, and not constant."""
    made, start = run_dam(tiny, coefficient_lr=0.0), start_of(tiny)
    for key in ("proj", "transformer.resblocks.0.mlp.c_fc.weight"):
        sure = (start[key] - tiny["base"][key]).abs() > 1e-3
        mask = ((made[key] - tiny["base"][key]) / (start[key] - tiny["base"][key]))[sure]
        assert (
            mask.min() > 0.5
            and mask.max() < 1.5
            and mask.std() > 1e-3
            and abs(mask.mean() - 1) < 0.01
        )


def test_dam_follows_from_its_seed_and_changes_none_of_its_inputs(tiny):
    before, state = tiny["base"]["proj"].clone(), torch.get_rng_state()
    one, again, other = run_dam(tiny), run_dam(tiny), run_dam(tiny, seed=1)
    assert same_bits(one, again) and not same_bits(one, other)
    assert torch.equal(tiny["base"]["proj"], before) and torch.equal(torch.get_rng_state(), state)
    assert not any(tensor.requires_grad for tensor in one.values())


def test_every_part_of_dam_counts(tiny):
    usual = run_dam(tiny)
    for how in ({"safety": 0.0}, {"eps": 0.5}, {"coefficient_lr": 0.1}, {"lr": 0.2}, {"batch": 5}):
        assert not same_bits(usual, run_dam(tiny, **how)), how


def test_what_dam_refuses_is_one_line(tiny):
    for how in ({"steps": -1}, {"batch": 0}, {"lr": 0.0}, {"safety": -1.0}):
        with one_line("dam wants"):
            run_dam(tiny, **how)
    with one_line("'right'", "no images"):
        run_dam({**tiny, "seen": {"left": tiny["seen"]["left"]}})
    with one_line("test split"):
        run_dam(
            {
                **tiny,
                "seen": {name: replace(part, split="test") for name, part in tiny["seen"].items()},
            }
        )
