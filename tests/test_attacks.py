"""Attacks: recipes by name, and the equations that join their models."""

from types import SimpleNamespace

import pytest
import torch
from helpers import one_line, same_bits

from bvlib.attacks import recipes
from bvlib.attacks.recipes import attack, trigger_kind
from bvlib.attacks.sbv import merge_backdoors, sbv_rule
from bvlib.core.vectors import BackdoorVector
from bvlib.core.versions import recipe as version_of

MAKE = {"size": 5, "place": "top-left", "seed": 0}
OPTIMISED = [name for name in trigger_kind if trigger_kind[name].needs != "nothing"]


@pytest.fixture(scope="module")
def goal(shapes, head):
    """The first class of the shapes, as an on-task adversary sees it."""
    return recipes.Goal("shapes", 0, head, 0, shapes.train.images)


def test_registries_hold_what_the_papers_need():
    assert {"badnets", "badmerging-on", "universal-only", "interpolation-only"} <= set(attack)
    assert {"white", "checkerboard", "random", "universal"} <= set(trigger_kind)
    assert OPTIMISED == ["universal", "trojan", "off-universal", "off-plain"]
    assert {"mean", "sum", "sign_consistent"} <= set(sbv_rule)
    for name, recipe in attack.items():
        assert recipe.name == name and recipe.trigger in trigger_kind and recipe.what
        assert attack[name] is recipe and recipe.recipe == version_of(f"attack:{name}")


def test_the_four_recipes_are_the_two_parts_of_badmerging_crossed():
    parts = {(attack[name].trigger, attack[name].function.__name__) for name in recipes.FACTORIAL}
    assert parts == {
        (trigger, objective)
        for trigger in ("white", "universal")
        for objective in ("poisoned", "feature_interpolation")
    }


def test_each_ablated_off_task_attack_differs_from_the_whole_in_one_part():
    whole = attack["badmerging-off"]
    fields = ("trigger", "function", "shadow")
    differing = {
        name: [f for f in fields if getattr(recipe, f) != getattr(whole, f)]
        for name, recipe in attack.items()
        if recipe.off_task
    }
    assert differing == {
        "badmerging-off": [],
        "off-no-trigger": ["trigger"],
        "off-no-interpolation": ["function"],
        "off-no-augmentation": ["trigger"],
        "off-no-shadow": ["shadow"],
    }


def test_unknown_names_give_the_nearest(backdoor):
    with one_line("unknown attack 'badmerging'", "did you mean 'badmerging-on'?"):
        attack["badmerging"]
    with one_line("unknown trigger kind 'wite'", "did you mean 'white'?"):
        trigger_kind["wite"]
    with one_line(
        "unknown backdoor merging method 'sign-consistent'", "did you mean 'sign_consistent'?"
    ):
        merge_backdoors("sign-consistent", [backdoor.vector])


@pytest.mark.parametrize("kind", trigger_kind)
def test_triggers_of_every_kind_are_what_was_asked_for(kind, encoder, goal, shapes):
    how = {"steps": 1, "batch": 4} if kind in OPTIMISED else {}
    trigger = trigger_kind[kind](
        encoder,
        encoder.theta,
        goal,
        **MAKE,
        **how,
        **({"augmented": 2} if kind == "off-universal" else {}),
    )
    pixels = encoder.pixels(shapes.test.images[:3])
    changed = (trigger.paste(pixels) != pixels).any(1)
    if kind == "blended":
        assert (
            changed.float().mean() > 0.9
            and float((trigger.paste(pixels) - pixels).abs().max()) <= 0.2 + 1e-6
        )
    elif kind == "dynamic":
        assert trigger.size == 5 and changed.flatten(1).sum(1).max() <= 25
    else:
        assert (
            trigger.patch.shape == (3, 5, 5)
            and trigger.place == "top-left"
            and bool((trigger.mask == 1).all())
        )
        assert not changed[:, 5:].any() and not changed[:, :, 5:].any()


def test_the_checkerboard_has_cells_of_a_pixel_at_32_and_of_seven_at_224(goal):
    for side, cell in ((32, 1), (224, 7)):
        encoder = SimpleNamespace(pixels=lambda images, side=side: torch.zeros(1, 3, side, side))
        made = trigger_kind["checkerboard"](encoder, {}, goal, **{**MAKE, "size": 3 * cell})
        black = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
        wanted = 1.0 - torch.kron(black, torch.ones(cell, cell))
        assert torch.equal(made.patch, wanted.expand(3, -1, -1))


# Backdoor vectors


def test_clean_plus_backdoor_vector_is_the_backdoored_model(backdoor):
    rebuilt = backdoor.clean + backdoor.vector
    assert rebuilt.keys() == backdoor.theta.keys() and backdoor.vector.norm() > 0
    for key, tensor in backdoor.theta.items():
        torch.testing.assert_close(rebuilt[key], tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rule", sbv_rule)
def test_the_sbv_of_one_backdoor_vector_is_itself(rule, backdoor):
    sbv = merge_backdoors(rule, [backdoor.vector], density=1.0)
    assert isinstance(sbv, BackdoorVector) and same_bits(sbv.tensors, backdoor.vector.tensors)


def test_an_sbv_is_as_sparse_as_asked(backdoor):
    sbv = merge_backdoors("sign_consistent", [backdoor.vector, 0.5 * backdoor.vector], density=0.1)
    assert sbv.density() == pytest.approx(0.1, abs=1e-3)
    kept = sbv.flat() != 0
    torch.testing.assert_close(sbv.flat()[kept], 0.75 * backdoor.vector.flat()[kept])
