"""Attacks and defences: recipes by name, and the equations that join their models."""

import pytest
import torch
from helpers import one_line, same_bits

from bvlib import attacks, defenses, merging
from bvlib.vectors import BackdoorVector

MAKE = {"size": 5, "place": "top-left", "seed": 0}


def test_registries_hold_what_the_papers_need():
    assert {"badnets", "badmerging-on", "universal-only", "interpolation-only"} <= set(attacks.ATTACKS)
    assert {"white", "checkerboard", "random", "universal"} <= set(attacks.TRIGGERS)
    assert {"mean", "sum", "sign_consistent"} <= set(merging.BV_MERGING) and "ibvs" in defenses.DEFENCES
    for name, recipe in attacks.ATTACKS.items():
        assert recipe.name == name and recipe.trigger in attacks.TRIGGERS and recipe.what
        assert attacks.attack(name) is recipe


def test_the_four_recipes_are_the_two_parts_of_badmerging_crossed():
    parts = {(recipe.trigger, recipe.objective.__name__) for recipe in attacks.ATTACKS.values()}
    assert parts >= {(trigger, objective) for trigger in ("white", "universal")
                     for objective in ("poisoned", "feature_interpolation")}


def test_unknown_names_give_the_nearest(encoder, head, shapes, backdoor):
    with one_line("unknown attack 'badmerging'", "did you mean 'badmerging-on'?"):
        attacks.attack("badmerging")
    with one_line("unknown trigger kind 'wite'", "did you mean 'white'?"):
        attacks.make_trigger("wite", encoder, encoder.theta, head, shapes.train, 0, **MAKE)
    with one_line("unknown backdoor merging method 'sign-consistent'", "did you mean 'sign_consistent'?"):
        attacks.sparse_backdoor_vector([backdoor.vector], "sign-consistent")


@pytest.mark.parametrize("kind", attacks.TRIGGERS)
def test_triggers_of_every_kind_have_the_size_and_place_asked_for(kind, encoder, head, shapes):
    how = {"steps": 1, "batch": 4} if kind == "universal" else {}
    trigger = attacks.make_trigger(kind, encoder, encoder.theta, head, shapes.train, 0, **MAKE, **how)
    assert trigger.patch.shape == (3, 5, 5) and trigger.place == "top-left" and bool((trigger.mask == 1).all())


# Backdoor vectors

def test_clean_plus_backdoor_vector_is_the_backdoored_model(backdoor):
    rebuilt = backdoor.clean + backdoor.vector
    assert rebuilt.keys() == backdoor.theta.keys() and backdoor.vector.norm() > 0
    for key, tensor in backdoor.theta.items():
        torch.testing.assert_close(rebuilt[key], tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rule", merging.BV_MERGING)
def test_the_sbv_of_one_backdoor_vector_is_itself(rule, backdoor):
    sbv = attacks.sparse_backdoor_vector([backdoor.vector], rule, density=1.0)
    assert isinstance(sbv, BackdoorVector) and same_bits(sbv.tensors, backdoor.vector.tensors)


def test_an_sbv_is_as_sparse_as_asked(backdoor):
    sbv = attacks.sparse_backdoor_vector([backdoor.vector, 0.5 * backdoor.vector], density=0.1)
    assert sbv.density() == pytest.approx(0.1, abs=1e-3)
    kept = (sbv.flat() != 0)
    torch.testing.assert_close(sbv.flat()[kept], 0.75 * backdoor.vector.flat()[kept])


# Defences

def test_ibvs_subtracts_and_at_scale_zero_changes_no_bit(backdoor):
    assert same_bits(defenses.ibvs(backdoor.theta, backdoor.vector, 0.0), backdoor.theta)
    defended = defenses.ibvs(backdoor.theta, backdoor.vector, 0.5)
    for key, tensor in backdoor.theta.items():
        halfway = (tensor + backdoor.clean[key]) / 2
        torch.testing.assert_close(defended[key], halfway, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("accuracies, chosen", [
    ({0: 80, 0.1: 79.5, 0.2: 79, 0.4: 78.9}, 0.2),         # exactly one point below is allowed
    ({0: 80, 0.1: 70, 0.2: 79.5, 0.4: 60}, 0.2),           # not monotone: the largest that qualifies
    ({0: 80, 0.1: 82, 0.2: 81, 0.4: 79.5}, 0.4),           # accuracy may rise
    ({0: 80, 0.1: 70, 0.2: 60}, 0),                        # nothing qualifies but no defence
    ({0.4: 79.5, 0: 80, 0.1: 80}, 0.4),                    # order does not matter
])
def test_the_scale_is_the_largest_within_one_point(accuracies, chosen):
    assert defenses.choose_scale(accuracies.get, list(accuracies)) == chosen


def test_the_budget_widens_the_choice_and_zero_must_be_there():
    accuracies = {0: 80, 0.1: 78.5, 0.2: 76}
    assert [defenses.choose_scale(accuracies.get, list(accuracies), budget) for budget in (1, 2, 4)] == [0, 0.1, 0.2]
    with one_line("must contain 0"):
        defenses.choose_scale(accuracies.get, [0.1, 0.2])
