"""Real CLIP encoders: open_clip's models by name, the activation of their weights, and heads kept
on disk."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from helpers import one_line, same_bits

from bvlib.core.encoder import Encoder
from bvlib.core.vectors import TaskVector
from bvlib.files.weights import digest, load_weights, save_weights
from bvlib.worlds import bases, clip
from bvlib.worlds.bases import open_clip

SMALL = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 64, "patch_size": 32, "layers": 2, "width": 64, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}  # the real vocabulary
NAMES, TEMPLATES = (
    ["aquarium fish", "bear", "hey!^"],
    ["a photo of a {}.", "a bad photo of the {}."],
)
KINDS = {True: "QuickGELU", False: "GELU"}


@pytest.fixture
def small(monkeypatch):
    """ViT-B-32, with and without -quickgelu, as a model of the same classes that is built in a
    blink."""
    for name, quick in (("ViT-B-32", {}), ("ViT-B-32-quickgelu", {"quick_gelu": True})):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, {**SMALL, **quick})
    monkeypatch.setattr(clip, "default_device", lambda: torch.device("cpu"))


@pytest.fixture
def published(small, tmp_path, monkeypatch):
    """What open_clip 'downloads' for any tag: a local file of random weights, whose image tower is
    returned."""
    weights = clip.build("ViT-B-32", seed=7)
    save(weights, tmp_path / "tag.safetensors")
    monkeypatch.setattr(
        open_clip.factory, "download_pretrained", lambda *_, **__: str(tmp_path / "tag.safetensors")
    )
    return weights.theta


def save(encoder, path):
    save_weights(path, encoder.model.state_dict(), encoder.card)


def heads(encoder, classnames, templates, folder):
    """The head that an encoder keeps in ``folder``."""
    return replace(encoder, folder=folder).head(classnames, templates)


def pixels(size, count=2):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_a_real_vit_b_32():
    encoder = clip.build("ViT-B-32-quickgelu", device="cpu")
    theta, x = encoder.theta, pixels(224)
    assert len(theta) == 152 and sum(t.numel() for t in theta.values()) == 87_849_216
    assert all(t.is_floating_point() for t in theta.values())
    card = encoder.card
    assert (card["quick_gelu"], card["image_size"], card["pretrained"]) == (True, 224, None)
    assert card["image_sha256"] == digest(theta) and card["mean"] == list(
        open_clip.OPENAI_DATASET_MEAN
    )
    features = encoder.features(theta, x)
    mean, std = (torch.tensor(card[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    wanted = encoder.model.encode_image((x - mean) / std)
    torch.testing.assert_close(features, wanted, rtol=1e-3, atol=1e-3)
    assert features.shape == (2, 512)
    head = encoder.head(NAMES, TEMPLATES)
    assert head.shape == (3, 512)
    assert encoder.predict(theta, (255 * x).byte().permute(0, 2, 3, 1), head).shape == (2,)
    json.dumps(card)


# Building


def test_random_weights_follow_the_seed_and_leave_the_callers_stream_alone(small):
    before = torch.random.get_rng_state()
    one, same, other = (
        clip.build("ViT-B-32"),
        clip.build("ViT-B-32", seed=0),
        clip.build("ViT-B-32", seed=1),
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert same_bits(one.theta, same.theta) and not same_bits(one.theta, other.theta)
    assert (
        one.card["seed"] == 0
        and one.card["open_clip"] == open_clip.__version__
        and one.name == "ViT-B-32"
    )


def test_the_trap_of_open_clip_and_that_build_avoids_it(published):
    with pytest.warns(UserWarning, match="QuickGELU mismatch"):
        trapped = open_clip.create_model("ViT-B-32", "openai")
    assert not clip.uses_quick_gelu(trapped)  # OpenAI's weights under another activation
    encoder = clip.build("ViT-B-32", "openai")
    assert clip.uses_quick_gelu(encoder.model) and encoder.card["quick_gelu"] is True
    assert (
        same_bits(encoder.theta, published)
        and encoder.card["pretrained"] == "openai"
        and encoder.card["seed"] is None
    )
    with one_line("want QuickGELU but the model has GELU", "'ViT-B-32-quickgelu'", "771"):
        clip.check_activation("ViT-B-32", True, trapped)
    assert not torch.allclose(
        trapped.eval().visual(pixels(64)), encoder.model.visual(pixels(64)), rtol=1e-3
    )


@pytest.mark.parametrize(
    "name, tag, quick",
    [
        ("ViT-B-32", "laion2b_s34b_b79k", False),
        ("ViT-B-32", "metaclip_400m", True),
        ("ViT-B-32-quickgelu", "openai", True),
        ("ViT-B-32", None, False),
        ("ViT-B-32-quickgelu", None, True),
    ],
)
def test_the_tag_decides_the_activation_and_without_one_the_name(
    published, recwarn, name, tag, quick
):
    encoder = clip.build(name, tag)
    assert encoder.card["quick_gelu"] is quick is clip.uses_quick_gelu(encoder.model)
    assert not [w for w in recwarn if "QuickGELU" in str(w.message)]


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16", "ViT-L-14"])
def test_the_papers_encoders_have_openai_weights_that_want_quick_gelu(name):
    assert (
        open_clip.get_pretrained_cfg(name, "openai")["quick_gelu"]
        and clip._config(name, "openai")[1]
    )


def test_unknown_names_and_tags():
    with one_line("unknown open_clip model 'ViT-B32': did you mean 'ViT-B-32'?"):
        clip.build("ViT-B32")
    with one_line("unknown weights of 'ViT-B-32', 'opneai': did you mean 'openai'?"):
        clip.build("ViT-B-32", "opneai")
    with one_line("finetuned.pt does not say which activation it wants"):
        clip.build("ViT-B-32", "finetuned.pt")
    with one_line("brings its own weights"):
        clip.build("hf-hub:someone/model", "openai")
    with one_line("no model config at 'local-dir:nowhere'"):
        clip.build("local-dir:nowhere")


def test_weights_that_cannot_be_had(small, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host\nat all")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", fail)
    with one_line(
        "could not make 'ViT-B-32' with weights 'openai'", "no route to host", "cache_dir"
    ):
        clip.build("ViT-B-32", "openai")


def test_a_model_in_a_folder_brings_its_config(small, tmp_path):
    made = clip.build("ViT-B-32-quickgelu", seed=3)
    save(made, tmp_path / "open_clip_model.safetensors")
    config = {
        "model_cfg": {**SMALL, "quick_gelu": True},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    encoder = clip.build(f"local-dir:{tmp_path}")
    assert encoder.name == encoder.card["name"] == f"local-dir:{tmp_path.name}"
    assert (
        same_bits(encoder.theta, made.theta)
        and encoder.card["quick_gelu"]
        and encoder.mean == [0.5] * 3
    )
    (tmp_path / "open_clip_model.safetensors").unlink()
    with one_line(
        "could not make", "Required pretrained weights"
    ):  # never random weights in their place
        clip.build(f"local-dir:{tmp_path}")


def test_vectors_and_gradients_of_a_clip_tower(small):
    encoder = clip.build("ViT-B-32")
    theta = {k: v.requires_grad_() for k, v in encoder.theta.items()}
    encoder.logits(encoder.features(theta, pixels(64)), encoder.head(NAMES, TEMPLATES)).logsumexp(
        1
    ).sum().backward()
    step = {k: (v - 0.01 * v.grad).detach() for k, v in theta.items()}
    vector = TaskVector.between(step, encoder.theta)
    assert vector.norm() > 0 and len(vector.tensors) == len(theta)


# The activation


def test_the_two_activations_differ_on_the_same_weights(small):
    plain, quick = clip.build("ViT-B-32"), clip.build("ViT-B-32-quickgelu")
    one, other = (e.features(plain.theta, pixels(64)) for e in (plain, quick))
    assert not torch.allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("quick", [False, True])
def test_a_model_of_the_wrong_activation_is_refused(small, quick):
    encoder = clip.build("ViT-B-32" + "-quickgelu" * quick)
    clip.check_activation(encoder.name, quick, encoder.model)
    with one_line(f"want {KINDS[not quick]} but the model has {KINDS[quick]}"):
        clip.check_activation(encoder.name, not quick, encoder.model)


def test_a_model_that_mixes_activations_is_refused(small):
    model = copy.deepcopy(clip.build("ViT-B-32").model)
    model.visual.transformer.resblocks[0].mlp.gelu = open_clip.transformer.QuickGELU()
    with one_line("mixes QuickGELU and GELU"):
        clip.uses_quick_gelu(model)


def test_the_shipped_base_has_gelu(encoder):
    clip.check_activation("small", False, encoder.model)


def test_saved_and_loaded(small, tmp_path):
    made = clip.build("ViT-B-32-quickgelu", seed=5)
    save(made, tmp_path / "mine.safetensors")
    mine = bases.load(str(tmp_path / "mine.safetensors"))
    assert (
        clip.uses_quick_gelu(mine.model)
        and same_bits(mine.theta, made.theta)
        and mine.mean == made.mean
    )
    assert torch.equal(mine.features(mine.theta, pixels(64)), made.features(made.theta, pixels(64)))
    assert torch.equal(
        mine.head(NAMES, TEMPLATES), made.head(NAMES, TEMPLATES)
    )  # the tokenizer too


# Heads


def test_a_head_is_made_once_and_kept(small, tmp_path, monkeypatch):
    encoder = clip.build("ViT-B-32")
    head = heads(encoder, NAMES, TEMPLATES, tmp_path)
    assert torch.equal(head, encoder.head(NAMES, TEMPLATES))
    again = clip.build("ViT-B-32")
    monkeypatch.setattr(Encoder, "head", lambda *_: pytest.fail("made again"))
    assert torch.equal(heads(again, NAMES, TEMPLATES, tmp_path), head)
    (file,) = tmp_path.glob("head-*.safetensors")
    assert load_weights(file)[1]["templates"] == TEMPLATES


def test_a_head_is_kept_apart_for_whatever_changes_it(small, tmp_path):
    for encoder in (
        clip.build("ViT-B-32"),
        clip.build("ViT-B-32", seed=1),
        clip.build("ViT-B-32-quickgelu"),
    ):
        heads(encoder, NAMES, TEMPLATES, tmp_path)
    quick = clip.build(
        "ViT-B-32-quickgelu"
    )  # the text weights of the first under the other activation
    quick.model.load_state_dict(clip.build("ViT-B-32").model.state_dict())
    heads(quick, NAMES, TEMPLATES, tmp_path)
    heads(encoder, NAMES[::-1], TEMPLATES, tmp_path)
    heads(encoder, NAMES, TEMPLATES[:1], tmp_path)
    assert len(list(tmp_path.glob("head-*.safetensors"))) == 6


def test_the_image_tower_does_not_change_the_head(small, tmp_path):
    encoder = clip.build("ViT-B-32")
    heads(encoder, NAMES, TEMPLATES, tmp_path)
    with torch.no_grad():
        encoder.model.visual.proj.mul_(2)
    heads(encoder, NAMES, TEMPLATES, tmp_path)
    assert len(list(tmp_path.glob("head-*.safetensors"))) == 1


def test_a_damaged_head_is_made_again(small, tmp_path):
    encoder = clip.build("ViT-B-32")
    head = heads(encoder, NAMES, TEMPLATES, tmp_path)
    (file,) = tmp_path.glob("head-*.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.warns(UserWarning, match="head made again"):
        assert torch.equal(heads(encoder, NAMES, TEMPLATES, tmp_path), head)
    assert torch.equal(load_weights(file)[0]["head"], head)


def test_a_head_needs_classes_and_templates(small, tmp_path):
    encoder = clip.build("ViT-B-32")
    for names, templates in (([], TEMPLATES), (NAMES, []), (NAMES, ["a thing"])):
        with one_line("a head needs class names and prompts"):
            heads(encoder, names, templates, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_papers_density_of_ties_is_of_the_saved_encoder():
    """A fifth of the image tower and the text embeddings, whose deltas are 0: 25.83 % of the image
    tower of ViT-B/32 (22,689,742 of 87,849,216 entries in the official code)."""
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32"))
    tower = sum(tensor.numel() for tensor in model.visual.state_dict().values())
    kept = 0.2 * clip.saved_entries(model)
    assert tower == 87_849_216 and abs(kept - 22_689_742) <= 1
    assert round(100 * kept / tower, 2) == 25.83
