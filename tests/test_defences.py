"""Defences: the registry and its one shape, the equations, the rule of strength, Fine-Pruning."""

import dataclasses

import pytest
import torch
from helpers import noise_vector, one_line, same_bits

from bvlib.attacks import recipes, triggers
from bvlib.core.encoder import Model
from bvlib.core.vectors import BackdoorVector
from bvlib.defences import Situation, defence, pruning
from bvlib.defences.ibvs import choose_scale, defended, ibvs
from bvlib.defences.occlusion import Occluded
from bvlib.merging.surgery import Adapter


@pytest.fixture(scope="module")
def attacked(encoder, backdoor):
    return Model(encoder, backdoor.theta)


# The registry


@pytest.fixture(scope="module")
def situation(tiny):
    """A merge of two tasks, and an attack on the left one; every model is as accurate."""
    encoder, base = tiny["encoder"], tiny["base"]
    parts = {
        name: (part.images, torch.arange(24) % 5, part.head) for name, part in tiny["seen"].items()
    }
    vector = BackdoorVector(noise_vector(base, 5).tensors, "attack")
    attack = recipes.Backdoor(
        "badnets", "left", 1, triggers.solid(4), base + vector, vector, "left"
    )
    return Situation(
        merged=Model(encoder, base + 0.3 * tiny["vectors"]["left"]),
        encoder=encoder,
        base=base,
        vectors=tiny["vectors"],
        parts=parts,
        accuracy=lambda model: 50.0,
        scales=[0.0, 0.5],
        injected=[noise_vector(base, 2), noise_vector(base, 3)],
        same_class=noise_vector(base, 4),
        drift=noise_vector(base, 6),
        patch=triggers.checkerboard(4, "top-left"),
        attack=attack,
        goal=parts["left"],
    )


ONE = {"steps": 1}
QUICK = {
    "lfpm": ONE,
    "dam": ONE,
    "tbar": ONE,
    "fine_pruning": {"steps": 1, "blocks": 1, "budget": 4.0},
}


@pytest.mark.parametrize("name", list(defence))
@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "an adapter a task"])
def test_every_defence_gives_a_model_and_leaves_what_it_was_given(situation, name, adapted):
    base, merged = situation.base["proj"].clone(), situation.merged
    if adapted:
        adapter = Adapter(torch.eye(128)[:2], torch.ones(128, 2))
        eyes = {n: adapter.over(situation.encoder) for n in situation.parts}
        merged = Model(eyes, merged.theta)
    before, method = merged.theta["proj"].clone(), defence[name]
    found = method(
        dataclasses.replace(situation, merged=merged), **method.settings({**QUICK, "sample": 8})
    )
    assert isinstance(found, Model) and found.theta.keys() == merged.theta.keys()
    assert torch.equal(situation.base["proj"], base)
    assert torch.equal(merged.theta["proj"], before)
    if name == "occlusion":
        assert isinstance(found.sight("left"), Occluded) and found.theta is merged.theta
        assert found.sight("left").encoder is merged.sight("left")
    elif name == "dam":
        assert found.encoder is situation.encoder  # a merge of its own
    else:
        assert found.encoder is merged.encoder
        assert not torch.equal(found.theta["proj"], before)


def test_what_is_subtracted_by_whom(situation, tiny):
    merged, (one, other) = situation.merged, situation.injected
    mean = 0.5 * (one + other)
    length = mean.norm() / situation.drift.norm()
    for name, vector in (
        ("ibvs", mean),
        ("ibvs-class", situation.same_class),
        ("placebo", length * situation.drift),
        ("oracle", situation.attack.vector),
    ):
        found, wanted = defence[name](situation).theta, (merged - 0.5 * vector).theta
        for key, tensor in found.items():
            torch.testing.assert_close(tensor, wanted[key], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["lfpm", "tbar", "fine-tuning", "fine-pruning"])
def test_the_learning_rate_of_a_defence_is_the_one_it_is_given(situation, name):
    """Of a profile's ``lr``: next to none moves next to nothing."""
    method, section = defence[name], defence[name].more.get("settings", name)

    def proj(**how):
        return method(situation, **method.settings({section: how})).theta["proj"]

    still, slow, fast = proj(steps=0, lr=1.0), proj(steps=1, lr=1e-9), proj(steps=1, lr=1e-2)
    assert (slow - still).abs().max() < 1e-6 and (fast - still).abs().max() > 1e-3


def test_a_defence_is_named_told_and_given_its_parameters():
    words = {m.needs for m in defence.values()}
    assert words == {"nothing", "the task", "task and class", "labels", "trigger, class"} | {
        "the attack"
    }
    assert all(m.what and m.label for m in defence.values())
    assert defence["lfpm"].settings({"lfpm": {"steps": 7}, "sample": 3}) == {"steps": 7}
    assert defence["fine-tuning"].settings(QUICK) == {"steps": 1}
    assert defence["fine-pruning"].settings(QUICK) == {"steps": 1, "blocks": 1}
    assert defence["occlusion"].settings({}) == {}
    with one_line("unknown defence", "lfpn", "did you mean 'lfpm'"):
        defence["lfpn"]


def test_a_defence_of_ones_own_gives_a_model_or_is_told(situation):
    @defence("nothing-new")
    def nothing_new(situation, *, half=False):
        return situation.merged.theta if half else situation.merged

    try:
        assert defence["nothing-new"](situation) is situation.merged
        assert defence["nothing-new"].label == "nothing-new"
        with one_line("'nothing_new'", "dict", "not a Model"):
            defence["nothing-new"](situation, half=True)
    finally:
        defence.without("nothing-new")


def test_a_situation_without_what_a_defence_needs_is_one_line(situation):
    poor = dataclasses.replace(situation, injected=(), attack=None)
    for name, what in (("ibvs", "injected"), ("oracle", "attack"), ("tbar", "attack")):
        with one_line(f"needs {what}"):
            defence[name](poor)


# The equations


def test_ibvs_subtracts_and_at_scale_zero_changes_no_bit(attacked, backdoor):
    assert same_bits(ibvs(attacked, backdoor.vector, 0.0).theta, backdoor.theta)
    halved = ibvs(attacked, backdoor.vector, 0.5)
    assert halved.encoder is attacked.encoder
    for key, tensor in backdoor.theta.items():
        halfway = (tensor + backdoor.clean[key]) / 2
        torch.testing.assert_close(halved.theta[key], halfway, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "accuracies, chosen",
    [
        ({0: 80, 0.1: 79.5, 0.2: 79, 0.4: 78.9}, 0.2),  # exactly one point below is allowed
        ({0: 80, 0.1: 70, 0.2: 79.5, 0.4: 60}, 0.2),  # not monotone: the largest that qualifies
        ({0: 80, 0.1: 82, 0.2: 81, 0.4: 79.5}, 0.4),  # accuracy may rise
        ({0: 80, 0.1: 70, 0.2: 60}, 0),  # nothing qualifies but no defence
        ({0.4: 79.5, 0: 80, 0.1: 80}, 0.4),  # order does not matter
    ],
)
def test_the_scale_is_the_largest_within_one_point(accuracies, chosen):
    assert choose_scale(accuracies.get, list(accuracies)) == chosen


def test_no_scale_below_the_chosen_one_is_tried():
    tried, accuracies = [], {0: 80, 0.1: 80, 0.2: 80, 0.4: 60, 0.7: 60}
    assert choose_scale(lambda s: tried.append(s) or accuracies[s], list(accuracies)) == 0.2
    assert tried == [0, 0.7, 0.4, 0.2]


def test_the_budget_widens_the_choice_and_zero_must_be_there():
    accuracies = {0: 80, 0.1: 78.5, 0.2: 76}
    assert [choose_scale(accuracies.get, list(accuracies), budget) for budget in (1, 2, 4)] == [
        0,
        0.1,
        0.2,
    ]
    with one_line("must contain 0"):
        choose_scale(accuracies.get, [0.1, 0.2])


def test_a_defended_model_is_the_one_at_the_chosen_strength(attacked, backdoor):
    """Accuracy falls by one point at 0.5 and by two at 1: 0.5 is chosen."""
    made = {s: ibvs(attacked, backdoor.vector, s) for s in (0.0, 0.5, 1.0)}
    lost = {id(made[s]): 80 - 2 * s for s in made}
    scale, model = defended(made.__getitem__, lambda m: lost[id(m)], [0.0, 0.5, 1.0])
    assert scale == 0.5 and model is made[0.5]


# Fine-pruning


def test_pruning_removes_the_least_active_units_and_nothing_else(encoder, shapes):
    model = Model(encoder, encoder.theta)
    active = pruning.activity(encoder, encoder.theta, shapes.dev.images)
    assert [len(units) for units in active.values()] == [512, 512]
    assert same_bits(pruning.prune(model, active, 0.0).theta, encoder.theta)
    pruned = pruning.prune(model, active, 0.25).theta
    keys = [f"{name}.c_proj.weight" for name in active]
    gone = torch.cat([(pruned[key] == 0).all(0) for key in keys])
    kept = torch.cat(list(active.values()))
    assert int(gone.sum()) == 256 and kept[gone].max() <= kept[~gone].min()
    assert same_bits(
        {k: v for k, v in pruned.items() if k not in keys},
        {k: v for k, v in encoder.theta.items() if k not in keys},
    )
    with one_line("from 0 to 1", "1.5"):
        pruning.prune(model, active, 1.5)


def test_the_activity_of_a_unit_by_hand(encoder, shapes):
    tokens = []
    hook = encoder.model.visual.transformer.resblocks[3].mlp.c_fc.register_forward_hook(
        lambda m, x, out: tokens.append(torch.nn.functional.gelu(out))
    )
    every = encoder.model.visual  # the tower that computes every token
    encoder.features(encoder.theta, encoder.pixels(shapes.dev.images), every)
    hook.remove()
    found = pruning.activity(encoder, encoder.theta, shapes.dev.images, blocks=1)
    torch.testing.assert_close(
        found["transformer.resblocks.3.mlp"] / 17,
        tokens[0].double().mean((0, 1)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_tuning_keeps_what_was_pruned_and_serves_all_tasks(encoder, shapes, head):
    model = Model(encoder, encoder.theta)
    parts = {
        "one": (shapes.dev.images, shapes.dev.labels, head),
        "other": (shapes.train.images[:32], shapes.train.labels[:32], head),
    }
    active = pruning.activity(encoder, encoder.theta, shapes.dev.images)
    tuned = pruning.tune(model, parts, pruned=active, share=0.5, steps=3, batch=16, warmup=1).theta
    gone = torch.cat([(tuned[f"{name}.c_proj.weight"] == 0).all(0) for name in active])
    assert int(gone.sum()) == 512 and not same_bits(tuned, encoder.theta)

    def loss(theta):
        f = encoder.features(theta, encoder.pixels(shapes.dev.images))
        return torch.nn.functional.cross_entropy(encoder.logits(f, head), shapes.dev.labels).item()

    tuned = pruning.tune(model, parts, steps=20, batch=44, lr=1e-3)
    assert loss(tuned.theta) < loss(encoder.theta)


def test_tuning_a_model_with_an_adapter_a_task_trains_through_the_adapters(tiny):
    encoder, parts = tiny["encoder"], {}
    for name, part in tiny["seen"].items():
        parts[name] = (part.images, torch.arange(24) % 5, part.head)
    width, how = 128, {"steps": 2, "batch": 8}
    still, moved = (
        {n: Adapter(torch.eye(width)[:2], up).over(encoder) for n in parts}
        for up in (torch.zeros(width, 2), torch.ones(width, 2))
    )
    plain = pruning.tune(Model(encoder, tiny["base"]), parts, **how)
    same, other = (pruning.tune(Model(each, tiny["base"]), parts, **how) for each in (still, moved))
    assert same.encoder is still and not same_bits(other.theta, plain.theta)
    for key, tensor in plain.theta.items():
        torch.testing.assert_close(same.theta[key], tensor, rtol=1e-3, atol=1e-5)
