"""Merging that needs data: closed forms, gradients against autograd, and what may not be looked
at."""

from dataclasses import replace

import pytest
import torch
from helpers import TINY_NAMES as NAMES
from helpers import noise_images as images
from helpers import noise_vector as noise
from helpers import one_line, same_bits
from helpers import random_head as head
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from bvlib.core.encoder import Encoder
from bvlib.core.rng import generator
from bvlib.merging import Seen, looks, merge, merged_model, merging, see
from bvlib.merging.adamerging import answers, entropy, entropy_gradient
from bvlib.merging.datafree import average, task_arithmetic
from bvlib.merging.regmean import grams, regmean
from bvlib.merging.surgery import surgery

torch.set_num_threads(1)
ADAPTIVE = [name for name in merging if looks(name)]


@pytest.fixture(scope="module")
def linear():
    """A tower of one linear layer, from 2 x 2 pixels (d = 12) to 5 features."""
    model = nn.Module()
    model.visual, model.logit_scale = (
        nn.Sequential(nn.Flatten(), nn.Linear(12, 5)),
        nn.Parameter(torch.tensor(1.0)),
    )
    encoder = Encoder(model, None)
    seen = {
        name: Seen(images(40 + 10 * k, 2, name), head(3, 5, name), "train")
        for k, name in enumerate(NAMES)
    }
    vectors = {name: noise(encoder.theta, seed, 1.0) for seed, name in enumerate(NAMES)}
    return {"encoder": encoder, "base": encoder.theta, "seen": seen, "vectors": vectors}


def inputs(encoder, part):
    return ((encoder.pixels(part.images) - 0.5) / 0.25).flatten(1).double()


# RegMean


def test_regmean_of_one_linear_layer_is_the_least_squares_solution(linear):
    # The W that minimises sum of |X_t W - X_t W_t|^2 / rows, by stacking the tasks' rows.
    rows, goals = [], []
    for name, vector in linear["vectors"].items():
        x = (
            inputs(linear["encoder"], linear["seen"][name])
            / len(linear["seen"][name].images) ** 0.5
        )
        rows, goals = [*rows, x], [*goals, x @ (linear["base"] + vector)["1.weight"].T.double()]
    wanted = torch.linalg.lstsq(torch.cat(rows), torch.cat(goals)).solution.T
    merged = linear["base"] + regmean(**linear, gamma=1.0, ridge=1e-12)
    torch.testing.assert_close(merged["1.weight"].double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        merged["1.bias"], (linear["base"] + average(list(linear["vectors"].values())))["1.bias"]
    )


def test_regmean_with_equal_grams_is_the_mean(linear):
    seen = dict.fromkeys(NAMES, linear["seen"]["left"])
    mean = average(list(linear["vectors"].values()))
    for gamma in (0.0, 0.1, 0.9):
        merged = regmean(**{**linear, "seen": seen}, gamma=gamma)
        torch.testing.assert_close(merged.tensors["1.weight"], mean.tensors["1.weight"])


def test_regmean_without_off_diagonals_weighs_each_input_alone(linear):
    found = {
        name: grams(linear["encoder"], linear["base"], linear["seen"][name].images)[
            "1.weight"
        ].diagonal()
        for name in NAMES
    }
    total = sum(linear["vectors"][name].tensors["1.weight"] * found[name].float() for name in NAMES)
    merged = regmean(**linear, gamma=0.0).tensors["1.weight"]
    torch.testing.assert_close(merged, total / sum(found.values()).float(), rtol=1e-4, atol=1e-5)


def test_regmean_of_identical_models_is_that_model(tiny):
    same = dict.fromkeys(NAMES, tiny["vectors"]["left"])
    merged = regmean(**{**tiny, "vectors": same}, images=8)
    for key, tensor in merged.tensors.items():
        torch.testing.assert_close(tensor, same["left"].tensors[key], rtol=1e-4, atol=1e-6)


def test_grams_are_those_of_an_explicit_forward_pass(tiny):
    encoder, theta, seen = (
        tiny["encoder"],
        tiny["base"] + tiny["vectors"]["left"],
        tiny["seen"]["left"].images[:6],
    )
    found = grams(encoder, theta, seen, batch=4)
    w, wanted = {k: v.double() for k, v in theta.items()}, {}

    def through(key, x):  # x @ W, x noted
        flat = x.reshape(-1, x.shape[-1])
        wanted[key] = flat.T @ flat / len(flat)
        return x @ (w[key] if key == "proj" else w[key].flatten(1).T)

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    pixels = (encoder.pixels(seen).double() - 0.5) / 0.25
    x = (
        pixels.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(6, 16, -1)
    )  # patches of 3 x 8 x 8
    x = through("conv1.weight", x)
    x = norm(
        "ln_pre",
        torch.cat([w["class_embedding"].expand(6, 1, -1), x], 1) + w["positional_embedding"],
    )
    for block in (f"transformer.resblocks.{i}." for i in range(4)):
        q, k, v = (
            through(f"{block}attn.in_proj_weight", norm(f"{block}ln_1", x))
            + w[f"{block}attn.in_proj_bias"]
        ).chunk(3, -1)
        heads = [
            torch.softmax(a @ b.transpose(1, 2) / 32**0.5, -1) @ c
            for a, b, c in zip(q.split(32, -1), k.split(32, -1), v.split(32, -1), strict=True)
        ]
        x = (
            x
            + through(f"{block}attn.out_proj.weight", torch.cat(heads, -1))
            + w[f"{block}attn.out_proj.bias"]
        )
        hidden = F.gelu(
            through(f"{block}mlp.c_fc.weight", norm(f"{block}ln_2", x)) + w[f"{block}mlp.c_fc.bias"]
        )
        x = x + through(f"{block}mlp.c_proj.weight", hidden) + w[f"{block}mlp.c_proj.bias"]
    features = through("proj", norm("ln_post", x[:, 0]))
    torch.testing.assert_close(
        features.float(), encoder.features(theta, encoder.pixels(seen)), rtol=1e-3, atol=1e-4
    )
    assert found.keys() == wanted.keys()
    for key in wanted:
        scale = wanted[key].diagonal().mean()
        torch.testing.assert_close(
            found[key] / scale, wanted[key] / scale, rtol=1e-3, atol=1e-4, msg=key
        )


def test_what_regmean_covers_and_what_it_averages(tiny):
    encoder, base, one = tiny["encoder"], tiny["base"], tiny["seen"]["left"].images[:1]
    matrices = {key for key, tensor in base.items() if tensor.ndim >= 2}
    assert matrices - grams(encoder, base, one).keys() == {"positional_embedding"}
    plain = grams(encoder, base, one, coverage="mlp")
    assert len(plain) == 8 and all(".mlp.c_" in key for key in plain)
    merged, mean = (
        regmean(**tiny, images=2, coverage="mlp"),
        average(list(tiny["vectors"].values())),
    )
    assert {k for k in base if not torch.equal(merged.tensors[k], mean.tensors[k])} == plain.keys()


def test_no_hook_stays_behind_when_a_forward_pass_fails(tiny):
    visual = tiny["encoder"].model.visual
    with pytest.raises(RuntimeError):
        grams(tiny["encoder"], tiny["base"], images(1, 16, "too small"))
    grams(tiny["encoder"], tiny["base"], tiny["seen"]["left"].images[:1])
    assert not any(module._forward_pre_hooks for module in visual.modules())


# AdaMerging


def stacks(tiny):
    first, second = (v.tensors for v in tiny["vectors"].values())
    return {key: torch.stack([first[key].flatten(), second[key].flatten()]) for key in first}


@pytest.mark.parametrize("layerwise", [False, True])
def test_the_gradient_by_inner_products_is_that_of_autograd(tiny, layerwise):
    encoder, base, parts = tiny["encoder"], tiny["base"], list(tiny["seen"].values())
    length = len(base) if layerwise else 1
    coefficients = 0.5 * torch.rand(2, length, generator=generator(0, "coefficients"))
    pixels, heads = (
        [encoder.pixels(part.images[:4]) for part in parts],
        [part.head for part in parts],
    )
    value, gradient = entropy_gradient(encoder, base, stacks(tiny), coefficients, pixels, heads)

    live = coefficients.clone().requires_grad_(True)
    rows = live.expand(2, len(base))
    theta = {
        key: base[key]
        + sum(rows[t, i] * v.tensors[key] for t, v in enumerate(tiny["vectors"].values()))
        for i, key in enumerate(base)
    }
    total = 0
    for x, h in zip(pixels, heads, strict=True):
        f = functional_call(encoder.model.visual, theta, ((x - 0.5) / 0.25,))
        total = (
            total
            + torch.distributions.Categorical(logits=encoder.logits(f, h)).entropy().mean() / 2
        )
    total.backward()
    assert value == pytest.approx(total.item(), rel=1e-5) and gradient.shape == (2, length)
    torch.testing.assert_close(gradient, live.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("layerwise", [False, True])
def test_adamerging_lowers_the_entropy_it_minimises(tiny, layerwise):
    encoder, parts = tiny["encoder"], tiny["seen"].values()
    name = f"adamerging_{'layer' if layerwise else 'task'}wise"
    merged = merge(name, **tiny, steps=12, batch=24, lr=0.02)
    start = task_arithmetic(list(tiny["vectors"].values()), coefficient=0.3)
    pixels, heads = [encoder.pixels(part.images) for part in parts], [part.head for part in parts]
    before, after = (
        float(entropy(answers(encoder, tiny["base"] + vector, pixels, heads)))
        for vector in (start, merged)
    )
    assert after < before - 1e-3
    found = [
        torch.linalg.lstsq(stack.T.double(), merged.tensors[key].double().view(-1, 1)).solution
        for key, stack in stacks(tiny).items()
    ]
    coefficients = torch.cat(found, 1)
    assert coefficients.min() > -1e-4 and coefficients.max() < 1 + 1e-4
    assert bool(coefficients.std(1).max() > 1e-3) == layerwise


def test_adamerging_starts_at_task_arithmetic_and_is_determined_by_its_seed(tiny):
    start = task_arithmetic(list(tiny["vectors"].values()), coefficient=0.3).tensors
    for name in ("adamerging_taskwise", "adamerging_layerwise"):
        for key, tensor in merge(name, **tiny, steps=0).tensors.items():
            torch.testing.assert_close(tensor, start[key])
    one, again, other = (
        merge("adamerging_layerwise", **tiny, steps=2, batch=4, seed=seed).tensors
        for seed in (0, 0, 1)
    )
    assert same_bits(one, again) and not same_bits(one, other)


# What may be looked at


def test_what_is_seen_of_a_task_has_no_labels(encoder, shapes, head):
    seen = see(encoder, shapes)
    assert torch.equal(seen.images, shapes.dev.images) and torch.equal(seen.head, head)
    assert not hasattr(seen, "labels")
    assert torch.equal(see(encoder, shapes, "train").images, shapes.train.images)


def test_every_method_says_what_it_saw_and_declares_its_parameters():
    ways = ["adamerging_taskwise", "adamerging_layerwise"]
    assert list(ADAPTIVE) == ["regmean", "regmean_all", *ways, "surgery"]
    assert all("unlabelled" in merging[name].needs for name in ADAPTIVE)
    assert dict(merging["regmean"].parameters) == {
        "images": 256,
        "gamma": 0.9,
        "ridge": 1e-6,
        "coverage": "mlp",
        "seed": 0,
    }
    assert dict(merging["adamerging_taskwise"].parameters) == {
        "init": 0.3,
        "lr": 1e-3,
        "steps": 500,
        "batch": 16,
        "seed": 0,
    }


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize(
    "change, words",
    [
        (lambda part: replace(part, split="test"), ("'right'", "test split", "train or dev")),
        (
            lambda part: replace(part, images=part.images[:0]),
            ("'right'", "no dev images", "sizes.dev"),
        ),
        (lambda part: replace(part, images=part.images.float()), ("'right'", "must be uint8")),
        (lambda part: replace(part, head=part.head[:, :7]), ("'right'", "width 7", "128")),
        (lambda part: None, ("'right'", "no images to look at")),
    ],
)
def test_what_may_not_be_seen_is_told_in_one_line(tiny, name, change, words):
    changed = change(tiny["seen"]["right"])
    given = {
        **tiny,
        "seen": {"left": tiny["seen"]["left"], **({"right": changed} if changed else {})},
    }
    with one_line(*words):
        if name == "surgery":
            surgery(
                tiny["encoder"], tiny["base"], given["seen"], dict.fromkeys(NAMES, tiny["base"])
            )
        else:
            merging[name].function(**given)  # however it is called


@pytest.mark.parametrize(
    "name, change, words",
    [
        ("regmeen", {}, ("unknown merging method 'regmeen'", "did you mean 'regmean'?")),
        ("regmean", {"gama": 0.5}, ("unknown parameter of 'regmean' 'gama'", "'gamma'")),
        ("regmean", {"gamma": 1.5}, ("gamma from 0 to 1", "1.5")),
        ("regmean", {"coverage": "al"}, ("unknown coverage of 'regmean' 'al'", "'all'")),
        ("adamerging_taskwise", {"batch": 0}, ("batch >= 1",)),
        ("regmean", {"vectors": {}}, ("the list of vectors is empty",)),
        ("regmean", {"vectors": []}, ("dict from task name to TaskVector", "list")),
    ],
)
def test_other_mistakes_are_told_in_one_line(tiny, name, change, words):
    with one_line(*words):
        merge(name, **{**tiny, **change})


def test_what_a_method_must_be_given_is_told_in_one_line(tiny):
    vectors = tiny["vectors"]
    with one_line("'regmean' looks at images", "give it base, encoder, seen"):
        merge("regmean", vectors)
    with one_line("'surgery' makes an adapter for each task", "bvlib.merged_model"):
        merge("surgery", vectors)


@pytest.mark.parametrize("name", merging)
def test_every_method_gives_a_model(tiny, name):
    own = {task: tiny["base"] + vector for task, vector in tiny["vectors"].items()}
    few = {"images": 2} if name.startswith("regmean") else {"steps": 0} if name in ADAPTIVE else {}
    vectors, where = tiny["vectors"], {k: tiny[k] for k in ("encoder", "base", "seen")}
    if name == "surgery":  # after AdaMerging, which is tested above
        small = {"init": 0.3, "steps": 0}
        theta = tiny["base"] + merge("adamerging_layerwise", **tiny, **small)
        adapters = merging[name](
            encoder=tiny["encoder"], merged=theta, seen=tiny["seen"], own=own, **few
        )
        assert adapters.keys() == own.keys()
        return
    model = merged_model(name, vectors, **where, own=own, **few)
    assert model.theta.keys() == tiny["base"].keys() and model.sight("left") is tiny["encoder"]
    assert not same_bits(model.theta, tiny["base"])


def test_an_encoder_of_another_width_is_told_in_one_line(tiny, linear):
    with one_line("tensor '1.weight'", "is in the encoder but not in the weights"):
        regmean(**{**tiny, "encoder": linear["encoder"]})
    wide = {**tiny["base"], "proj": torch.zeros(64, 128)}
    with one_line(
        "tensor 'proj' has shape (128, 128) in the merged model and (64, 128) in the model of "
        "'left'"
    ):
        surgery(tiny["encoder"], tiny["base"], tiny["seen"], {"left": wide})


def test_nothing_is_left_in_the_encoder(tiny):
    encoder, before = tiny["encoder"], tiny["encoder"].theta
    regmean(**tiny, images=2)
    merge("adamerging_layerwise", **tiny, steps=1, batch=2)
    assert same_bits(before, encoder.theta) and not any(
        p.requires_grad for p in encoder.model.parameters()
    )
    assert all(p.grad is None for p in encoder.model.parameters())


def test_a_new_method_is_one_function(linear):
    try:

        @merging("scaled", needs="nothing, unlabelled")
        def scaled(vectors, *, encoder, base, seen, strength=2.0):
            return strength * vectors["left"]

        assert dict(merging["scaled"].parameters) == {"strength": 2.0} and looks("scaled")
        merged = merge("scaled", **linear)
        assert same_bits(merged.tensors, (2 * linear["vectors"]["left"]).tensors)
        with one_line("'scaled' is already registered"):
            merging("scaled", needs="")(lambda vectors: vectors)
    finally:
        merging.without("scaled")


def test_a_method_that_looks_at_images_names_all_it_needs():
    with one_line("half looks at images", "encoder, base and seen"):

        @merging("half")
        def half(vectors, *, seen):
            return vectors

    assert "half" not in merging
