"""Encoders: the shipped base is a genuine open_clip model, and what does not fit it is told in one
line."""

import copy as copying
import os
import shutil
import subprocess
import sys

import pytest
import torch
from helpers import one_line

from bvlib.attacks import triggers
from bvlib.core.encoder import EVALUATED, Model
from bvlib.files.weights import load_weights, save_weights
from bvlib.worlds import bases
from bvlib.worlds.bases import open_clip  # not by itself: torchvision must be prepared first
from bvmake.pretrain import captions


@pytest.fixture
def copy(tmp_path):
    """A copy of the toy base and its card, to be damaged."""
    for end in (".safetensors", ".json"):
        shutil.copy(bases.WEIGHTS / f"small{end}", tmp_path / f"mine{end}")
    return tmp_path / "mine.safetensors"


@pytest.fixture
def pixels(encoder, shapes):
    return encoder.pixels(shapes.test.images[:8])


def test_the_shipped_base_loads_through_the_factory_of_open_clip(encoder, pixels):
    path = bases.WEIGHTS / "small.safetensors"
    model = open_clip.create_model("bvlib-small", pretrained=str(path), load_weights=True).eval()
    assert isinstance(model, open_clip.CLIP) and path.stat().st_size <= 8 * 2**20
    features = model.encode_image((pixels - 0.5) / 0.25)
    torch.testing.assert_close(
        features, encoder.features(encoder.theta, pixels), rtol=1e-4, atol=1e-4, check_stride=False
    )
    assert open_clip.get_tokenizer("bvlib-small")(["a star"]).shape == (1, model.context_length)


def test_a_copy_elsewhere_is_the_same_base(copy, encoder, pixels):
    mine = bases.load(str(copy))
    assert mine.name == "mine" and mine.card["sha256"] == encoder.card["sha256"]
    assert torch.equal(mine.features(mine.theta, pixels), encoder.features(encoder.theta, pixels))


# Images


def test_features_under_its_own_theta_are_the_image_tower_on_normalised_pixels(encoder, pixels):
    wanted = encoder.model.visual((pixels - 0.5) / 0.25)
    first = encoder.features(encoder.theta, pixels)
    torch.testing.assert_close(first, wanted, rtol=1e-4, atol=1e-4)  # the last block computes less
    assert torch.equal(
        encoder.features(encoder.theta, pixels), first
    )  # functional: nothing was left behind


def test_theta_decides_the_features_and_is_a_copy(encoder, pixels):
    before, theta = encoder.features(encoder.theta, pixels), encoder.theta
    for tensor in theta.values():
        tensor.mul_(1.5)
    assert not torch.allclose(encoder.features(theta, pixels), before)
    assert torch.equal(encoder.features(encoder.theta, pixels), before)


def test_no_batch_norm_as_merging_would_average_its_statistics(encoder):
    assert all(tensor.is_floating_point() for tensor in encoder.theta.values())
    assert not any("running" in key for key in encoder.theta)


def test_pixels_of_bytes(encoder):
    images = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    images[0, 2, 5] = torch.tensor([255, 51, 0])
    pixels = encoder.pixels(images)
    assert pixels.shape == (1, 3, 32, 32) and pixels[0, :, 2, 5].tolist() == pytest.approx(
        [1, 0.2, 0]
    )
    assert encoder.pixels(pixels) is pixels


def test_predictions_do_not_depend_on_the_batch(encoder, shapes, head):
    whole = encoder.predict(encoder.theta, shapes.test.images, head)
    logits = encoder.logits(
        encoder.features(encoder.theta, encoder.pixels(shapes.test.images)), head
    )
    assert torch.equal(whole, logits.argmax(1)) and whole.dtype == torch.int64
    assert torch.equal(whole, encoder.predict(encoder.theta, shapes.test.images, head, batch=7))
    assert encoder.predict(encoder.theta, shapes.test.images[:0], head).shape == (0,)


# Words


def test_text_features_are_those_of_open_clip(encoder):
    tokens = encoder.tokenizer(["a star", "a photo of a red digit seven and a circle on blue", ""])
    torch.testing.assert_close(
        captions.text_features(encoder.model, tokens),
        encoder.model.encode_text(tokens, normalize=True),
        rtol=1e-4,
        atol=1e-5,
    )


def test_head_rows_are_averages_of_prompts_and_have_length_one(encoder, shapes, head):
    assert head.shape == (len(shapes.classnames), bases.TINY["embed_dim"])
    torch.testing.assert_close(head.norm(dim=1), torch.ones(len(head)))
    texts = encoder.tokenizer([prompt.format(shapes.classnames[3]) for prompt in shapes.prompts])
    mean = encoder.model.encode_text(texts, normalize=True).mean(0)
    torch.testing.assert_close(head[3], mean / mean.norm(), rtol=1e-4, atol=1e-5)
    off = (head @ head.T).fill_diagonal_(0)
    assert off.max() < 0.999  # no two classes are one point


def test_a_head_needs_classes_and_prompts(encoder):
    for classes, prompts in (([], ["a {}"]), (["x"], []), (["x"], ["a thing"])):
        with one_line("a head needs class names and prompts with {}"):
            encoder.head(classes, prompts)


# What does not fit


def test_an_unknown_name_gives_the_nearest():
    with one_line("unknown base 'smal'", "did you mean 'small'?"):
        bases.load("smal")
    with one_line("unknown base 'nowhere/toy.safetensors'"):
        bases.load("nowhere/toy.safetensors")


@pytest.mark.parametrize("with_hash", [True, False])
def test_a_truncated_file(copy, with_hash):
    copy.write_bytes(copy.read_bytes()[:-100])
    if not with_hash:
        card = copy.with_suffix(".json")
        card.write_text(card.read_text().replace('"sha256"', '"unused"'))
    with one_line("mine.safetensors", "copy or make it again"):
        bases.load(str(copy))


def test_a_missing_card(copy):
    copy.with_suffix(".json").unlink()
    with one_line("mine.safetensors has no card", "mine.json"):
        bases.load(str(copy))


def drop(weights):
    del weights["visual.conv1.weight"]


def add(weights):
    weights["visual.conv2.weight"] = torch.zeros(2)


def reshape(weights):
    weights["visual.proj"] = weights["visual.proj"][:, :64]


@pytest.mark.parametrize(
    "change, words",
    [
        (drop, "lacks the tensor 'visual.conv1.weight'"),
        (add, "'visual.conv2.weight'"),
        (reshape, "'visual.proj' has shape (128, 64)"),
    ],
)
def test_weights_of_another_model(copy, change, words):
    weights, card = load_weights(copy)
    change(weights)
    save_weights(copy, weights, card)
    with one_line("mine.safetensors", words):
        bases.load(str(copy))


def test_importing_bases_makes_torchvision_importable():
    code = (
        "import bvlib.worlds.bases, torchvision; torchvision.transforms.Resize(32); "
        "torchvision.datasets.CIFAR10"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).returncode == 0
    )


WHOLE = """
import torch
# as the compiled library does: a second declaration is an error
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
ODD = """
import torch
from . import half
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
"""
BROKEN = "raise RuntimeError('something else')"


@pytest.mark.parametrize("source, words", [(WHOLE, ""), (ODD, ""), (BROKEN, "something else")])
def test_operators_are_declared_only_where_torchvision_lacks_them(source, words, tmp_path):
    """A whole torchvision (a CUDA build of torch, or macOS) brings its own: declaring them by hand
    as well once ended the process."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(source)
    (tmp_path / "torchvision/half.py").write_text("")
    code = (
        "import bvlib.core._torchvision, torch, torchvision; torch.ops.torchvision.nms; "
        "print('imported')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        },
    )
    assert words in done.stderr and (done.returncode == 0 and "imported" in done.stdout) != bool(
        words
    ), done.stderr


def test_a_prediction_is_made_once_and_anew_for_whatever_differs(encoder, shapes, monkeypatch):
    monkeypatch.setattr("bvlib.core.encoder._PREDICTED", {})
    theta, white = encoder.theta, triggers.solid(6)
    other = {key: 1.5 * tensor for key, tensor in theta.items()}

    def passed(theta, *asked):
        """What is predicted, and how many images went through the encoder for it."""
        before = EVALUATED["images"]
        found = Model(encoder, theta).predict(shapes, *asked)
        return found, EVALUATED["images"] - before

    seen = set()
    for own in (theta, other):
        for asked in (
            (),
            (white,),
            (white.at("top-left"),),
            (triggers.solid(7),),
            (triggers.Dynamic(6, 1),),
            (triggers.Dynamic(6, 2),),
            (white, "dev"),
        ):
            first, images = passed(own, *asked)
            split = getattr(shapes, asked[1] if asked[1:] else "test")
            assert images == len(split)
            head = encoder.head(shapes.classnames, shapes.prompts)
            afresh = encoder.predict(own, split.images, head, *asked[:1])
            assert torch.equal(first, afresh)
            first.fill_(-1)  # what is kept is no longer in the caller's hands
            again, images = passed({k: v.clone() for k, v in own.items()}, *asked)
            assert images == 0 and torch.equal(again, afresh)
            seen.add(tuple(again.tolist()))
    assert len(seen) > 6

    class Unknown:
        """A trigger that does not say what tells it from others."""

        paste = staticmethod(lambda pixels: pixels)

    assert [passed(theta, Unknown())[1] for _ in range(2)] == [len(shapes.test)] * 2


def test_of_predictions_only_the_last_are_kept(encoder, shapes, monkeypatch):
    monkeypatch.setattr("bvlib.core.encoder.REMEMBERED", 1)
    monkeypatch.setattr("bvlib.core.encoder._PREDICTED", {})
    model = Model(encoder, encoder.theta)

    def images(split):
        before = EVALUATED["images"]
        model.predict(shapes, split=split)
        return EVALUATED["images"] - before

    assert images("dev") == len(shapes.dev) and images("dev") == 0
    assert images("test") == len(shapes.test)
    assert images("dev") == len(shapes.dev)


def test_the_lean_tower_gives_what_open_clips_gives_features_and_gradients(encoder, shapes):
    from bvlib.core.tower import lean

    whole = encoder.model.visual
    quick = lean(whole)
    assert quick is not whole and next(quick.parameters()).is_meta
    pixels = encoder.pixels(shapes.test.images)

    def found(tower):
        theta = {k: v.requires_grad_(True) for k, v in encoder.theta.items()}
        features = encoder.features(theta, pixels, tower)
        return [features, *torch.autograd.grad(features.square().sum(), list(theta.values()))]

    for a, b in zip(found(whole), found(quick), strict=True):
        assert (a - b).abs().max() < 1e-4 * a.abs().max()
    other = torch.nn.Linear(2, 2)
    assert lean(other) is other


def test_a_tower_that_pools_otherwise_is_taken_as_it_is(encoder):
    from bvlib.core.tower import lean

    tower = copying.deepcopy(encoder.model.visual)
    tower.pool_type = "avg"
    assert lean(tower) is tower
