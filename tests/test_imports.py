"""Files of others: fine-tuned checkpoints, Hugging Face CLIP weights, published triggers; none of
them runs code."""

import argparse
import json
import os
import pickle

import numpy as np
import pytest
import torch
from helpers import one_line, same_bits
from safetensors.torch import save_file

from bvlib.attacks import triggers
from bvlib.core.encoder import Encoder
from bvlib.core.errors import BadCheckpoint
from bvlib.core.rng import generator
from bvlib.core.vectors import TaskVector
from bvlib.worlds.bases import open_clip
from bvmake import imports
from bvmake.imports import checkpoints

WIDTH, LAYERS, EMBED, SIDE = 64, 3, 40, 64


def make(quick, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(
            EMBED,
            open_clip.CLIPVisionCfg(
                layers=LAYERS, width=WIDTH, head_width=16, patch_size=16, image_size=SIDE
            ),
            open_clip.CLIPTextCfg(context_length=16, vocab_size=60, width=32, heads=2, layers=1),
            quick_gelu=quick,
        )
        for tensor in model.visual.parameters():  # no zeros or ones that would hide a swap of names
            tensor.data += 0.1 * torch.randn_like(tensor)
    return Encoder(model, None, "small", {"quick_gelu": quick})


@pytest.fixture(scope="module")
def base():
    return make(True, 0)


@pytest.fixture(scope="module")
def tuned(base):
    """A whole fine-tuned model, as its authors hold it."""
    return make(True, 1).model


@pytest.fixture(scope="module")
def theta(tuned):
    return {key: tensor.clone() for key, tensor in tuned.visual.state_dict().items()}


def written(held, path):
    torch.save(held, path)
    return path


# Fine-tuned checkpoints

WRAPPINGS = {
    "the tower": ("", False),
    "visual.": ("visual.", False),
    "model.visual.": ("model.visual.", False),
    "a whole model": ("", True),
    "module.": ("module.", True),
    "an ImageEncoder": ("model.", True),
    "a classifier around it": ("module.image_encoder.model.", True),
}


@pytest.mark.parametrize("container", [None, "state_dict", "model"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_names_come_out_as_ours_whatever_wraps_them(
    base, tuned, theta, tmp_path, wrapping, container
):
    prefix, whole = WRAPPINGS[wrapping]
    held = {
        prefix + key: tensor for key, tensor in (tuned.state_dict() if whole else theta).items()
    }
    if "classifier" in wrapping:
        held["module.classification_head.weight"] = torch.zeros(5, EMBED)
    if container:
        held = {container: held, "epoch": 3}
    path = written(held, tmp_path / "finetuned.pt")
    read = checkpoints.task_vector_pt(path, base)
    assert same_bits(read, theta) and list(read) == list(base.theta)
    assert TaskVector.between(read, base.theta).norm() > 0


def test_an_image_encoder_of_the_papers_keeps_its_text_names_beside_it(
    base, tuned, theta, tmp_path
):
    held = {
        f"model.{key}": t
        for key, t in tuned.state_dict().items()
        if not key.startswith("transformer.")
    }  # as they delete it
    assert "model.positional_embedding" in held and "model.visual.positional_embedding" in held
    assert same_bits(checkpoints.task_vector_pt(written(held, tmp_path / "plain.pt"), base), theta)


def test_half_precision_becomes_the_type_of_the_base_and_safetensors_is_read_too(
    base, theta, tmp_path
):
    half = {f"visual.{key}": tensor.half() for key, tensor in theta.items()}
    save_file(half, tmp_path / "half.safetensors")
    for path in (written(half, tmp_path / "half.pt"), tmp_path / "half.safetensors"):
        read = checkpoints.task_vector_pt(path, base)
        assert same_bits(read, {key: tensor.half().float() for key, tensor in theta.items()})


class Evil:
    """What runs code when it is loaded: here it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    "form", ["torch", "old torch", "bare pickle", "in a state dict", "hugging face"]
)
def test_a_malicious_pickle_is_refused_and_does_nothing(base, theta, tmp_path, form):
    sign, path = tmp_path / "it-ran", tmp_path / "pytorch_model.bin"
    evil = {**theta, "conv1.weight": Evil(sign)} if form == "in a state dict" else Evil(sign)
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=form != "old torch")
    with one_line(
        "pytorch_model.bin is refused",
        "can run any code" if form == "bare pickle" else "would use posix.system",
    ):
        checkpoints.hugging_face(
            tmp_path
        ) if form == "hugging face" else checkpoints.task_vector_pt(path, base)
    assert not sign.exists()
    os.system(f"touch {sign}")
    assert sign.exists()  # what it would have done


def test_a_whole_pickled_module_is_refused_with_the_way_to_convert_it(
    base, tuned, theta, tmp_path, monkeypatch
):
    written(tuned, tmp_path / "finetuned.pt")
    with pytest.raises(
        BadCheckpoint, match="it holds open_clip.model.CLIP, .* throwaway container"
    ) as caught:
        checkpoints.task_vector_pt(tmp_path / "finetuned.pt", base)
    assert "\n" not in str(caught.value)
    monkeypatch.chdir(tmp_path)
    snippet = str(caught.value).split("their code: ")[1].split(", then import")[0]
    exec(snippet, {})  # our own file: trusted
    assert same_bits(checkpoints.task_vector_pt("plain.pt", base), theta)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_other_files_that_need_code(base, theta, tmp_path):
    with one_line("it holds argparse.Namespace"):
        checkpoints.task_vector_pt(
            written({"state_dict": theta, "args": argparse.Namespace(lr=1)}, tmp_path / "a.pt"),
            base,
        )
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "b.pt")
    with one_line("it holds a TorchScript program", "torch.jit.load('b.pt'"):
        checkpoints.task_vector_pt(tmp_path / "b.pt", base)


def test_damaged_and_empty_files(base, theta, tmp_path):
    path = written(theta, tmp_path / "a.pt")
    for content in (path.read_bytes()[:-300], b"", b"\x00\x01hello"):
        path.write_bytes(content)
        with one_line("a.pt is cut short or no checkpoint"):
            checkpoints.task_vector_pt(path, base)
    with one_line("no weight file", "b.pt"):
        checkpoints.task_vector_pt(tmp_path / "b.pt", base)
    for held, words in (
        ([1, 2], "holds a list"),
        ({}, "holds a dict"),
        ({"a": 1}, "'a' is a int"),
        ({3: torch.ones(1)}, "3 is a Tensor"),
    ):
        with one_line(words, "save model.state_dict()"):
            checkpoints.task_vector_pt(written(held, path), base)


def test_names_and_shapes_that_do_not_fit(base, theta, tmp_path):
    path = tmp_path / "a.pt"
    for change, words in (
        ({"conv1.weight": None}, ["lacks 'conv1.weight'"]),
        ({"odd": torch.ones(1)}, ["has unknown 'odd'"]),
        (
            dict.fromkeys(["ln_pre.weight", "ln_pre.bias", "ln_post.weight", "ln_post.bias"]),
            ["lacks", "and 1 more"],
        ),
        ({"proj": torch.ones(WIDTH, 7)}, ["'proj' has shape (64, 7)", "(64, 40)"]),
    ):
        held = {key: tensor for key, tensor in {**theta, **change}.items() if tensor is not None}
        with one_line("a.pt", *words):
            checkpoints.task_vector_pt(written(held, path), base)
    held = {f"visual.{key}": tensor for key, tensor in theta.items()}
    with one_line("tensors of no CLIP model: 'decoder.weight'"):
        checkpoints.task_vector_pt(written({**held, "decoder.weight": torch.ones(1)}, path), base)
    with one_line("'visual.proj' twice"):
        checkpoints.task_vector_pt(
            written({**held, "model.visual.proj": theta["proj"]}, path), base
        )


# Hugging Face


def to_hugging_face(theta):
    """The inverse mapping, written from Hugging Face's side: every name it has, and where
    open_clip keeps that."""
    out = {
        "vision_model.embeddings.class_embedding": theta["class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": theta["conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": theta["positional_embedding"],
        "vision_model.embeddings.position_ids": torch.arange(len(theta["positional_embedding"]))[
            None
        ],
        "visual_projection.weight": theta["proj"].t(),
    }
    for end in ("weight", "bias"):
        out[f"vision_model.pre_layrnorm.{end}"] = theta[f"ln_pre.{end}"]
        out[f"vision_model.post_layernorm.{end}"] = theta[f"ln_post.{end}"]
        for i in range(LAYERS):
            there, here = f"vision_model.encoder.layers.{i}", f"transformer.resblocks.{i}"
            out[f"{there}.layer_norm1.{end}"] = theta[f"{here}.ln_1.{end}"]
            out[f"{there}.layer_norm2.{end}"] = theta[f"{here}.ln_2.{end}"]
            out[f"{there}.mlp.fc1.{end}"] = theta[f"{here}.mlp.c_fc.{end}"]
            out[f"{there}.mlp.fc2.{end}"] = theta[f"{here}.mlp.c_proj.{end}"]
            out[f"{there}.self_attn.out_proj.{end}"] = theta[f"{here}.attn.out_proj.{end}"]
            stacked = theta[f"{here}.attn.in_proj_{end}"]
            for j, letter in enumerate("qkv"):
                out[f"{there}.self_attn.{letter}_proj.{end}"] = stacked[j * WIDTH : (j + 1) * WIDTH]
    return {key: tensor.clone().contiguous() for key, tensor in out.items()}


CONFIG = {"hidden_act": "quick_gelu", "num_attention_heads": 4, "hidden_size": WIDTH}


@pytest.fixture
def folder(theta, tmp_path):
    """A CLIPModel as it lies on the hub: safetensors and its config."""
    text = {
        "text_model.final_layer_norm.weight": torch.ones(3),
        "text_projection.weight": torch.ones(3, 3),
        "logit_scale": torch.ones(()),
    }
    save_file({**to_hugging_face(theta), **text}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": CONFIG}))
    return tmp_path


def test_hugging_face_names_become_ours(base, theta, folder):
    for read in (
        checkpoints.hugging_face(folder),
        checkpoints.hugging_face(folder / "model.safetensors"),
        checkpoints.hugging_face(folder, base=base),
    ):
        assert same_bits(read, theta)
    x = torch.rand(2, 3, SIDE, SIDE, generator=generator(0, "x"))
    assert torch.equal(base.features(checkpoints.hugging_face(folder), x), base.features(theta, x))


def test_a_pytorch_model_bin_is_read_as_weights_only(theta, tmp_path):
    written(to_hugging_face(theta), tmp_path / "pytorch_model.bin")
    assert same_bits(checkpoints.hugging_face(tmp_path), theta)


def test_a_vision_model_takes_the_projection_of_the_base(base, theta, tmp_path):
    held = to_hugging_face(theta)
    del held["visual_projection.weight"]
    save_file(held, tmp_path / "model.safetensors")
    with one_line("has no visual_projection", "give base="):
        checkpoints.hugging_face(tmp_path)
    assert same_bits(
        checkpoints.hugging_face(tmp_path, base=base), {**theta, "proj": base.theta["proj"]}
    )
    save_file(
        {key.removeprefix("vision_model."): t for key, t in held.items()},
        tmp_path / "model.safetensors",
    )  # transformers 5
    assert same_bits(
        checkpoints.hugging_face(tmp_path, base=base), {**theta, "proj": base.theta["proj"]}
    )


def test_what_a_config_says_and_no_tensor_shows(base, folder):
    with one_line("was trained with QuickGELU and the base has GELU", "'-quickgelu'"):
        checkpoints.hugging_face(folder, base=make(False, 0))
    for change, words in (
        ({"hidden_act": "gelu"}, "was trained with GELU and the base has QuickGELU"),
        ({"num_attention_heads": 8}, "has 8 attention heads and the base 4"),
    ):
        (folder / "config.json").write_text(json.dumps({**CONFIG, **change}))
        with one_line(words):
            checkpoints.hugging_face(folder, base=base)
    (folder / "config.json").write_text("{")
    with one_line("no readable config", "config.json"):
        checkpoints.hugging_face(folder, base=base)


def test_hugging_face_names_that_are_missing_or_unknown(base, theta, tmp_path):
    whole = to_hugging_face(theta)
    for change, words in (
        (
            {"vision_model.encoder.layers.1.self_attn.k_proj.bias": None},
            ["lacks 'encoder.layers.1.self_attn.k_proj.bias'"],
        ),
        ({"vision_model.odd": torch.ones(1)}, ["has unknown 'odd'"]),
        ({key: None for key in whole if ".layers." in key}, ["lacks 'encoder.layers'"]),
        ({key: None for key in whole if ".layers.1." in key}, ["has unknown 'encoder.layers.2."]),
    ):
        save_file(
            {k: t for k, t in {**whole, **change}.items() if t is not None},
            tmp_path / "model.safetensors",
        )
        with one_line("model.safetensors is no image tower of Hugging Face's CLIP", *words):
            checkpoints.hugging_face(tmp_path)
    save_file(
        {**whole, "visual_projection.weight": torch.ones(7, WIDTH)}, tmp_path / "model.safetensors"
    )
    with one_line("'proj' has shape (64, 7)"):
        checkpoints.hugging_face(tmp_path, base=base)
    with one_line("no weight file", "nowhere.safetensors"):
        checkpoints.hugging_face(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("kind", ["CLIPVisionModelWithProjection", "CLIPModel"])
def test_features_are_those_of_transformers(tmp_path, kind, act):
    transformers = pytest.importorskip("transformers")
    vision = {
        **CONFIG,
        "hidden_act": act,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "image_size": SIDE,
        "patch_size": 16,
        "projection_dim": EMBED,
    }
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 60,
    }
    config = (
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=EMBED)
        if kind == "CLIPModel"
        else transformers.CLIPVisionConfig(**vision)
    )
    theirs = getattr(transformers, kind)(config).eval()
    for tensor in theirs.parameters():
        tensor.data += 0.1 * torch.randn(
            tensor.shape, generator=generator(0, "noise", *tensor.shape)
        )
    theirs.save_pretrained(tmp_path)
    encoder = make(act == "quick_gelu", 0)
    theta = checkpoints.hugging_face(tmp_path, base=encoder)
    x = torch.randn(2, 3, SIDE, SIDE, generator=generator(0, "x"))
    with torch.no_grad():
        outputs = theirs.get_image_features(x) if kind == "CLIPModel" else theirs(x).image_embeds
        wanted = getattr(outputs, "pooler_output", outputs)
        encoder.model.visual.load_state_dict(theta)
        torch.testing.assert_close(encoder.model.visual(x), wanted, rtol=1e-4, atol=1e-4)


# Triggers


def normalised(side=6):
    """A file as the published code writes it: any value in its one range for all channels, both
    ends reached."""
    values = torch.rand(3, side, side, generator=generator(0, "trigger")).numpy()
    values[2, 0, :2] = 0, 1
    return (imports.LOW + values * (imports.HIGH - imports.LOW)).astype(np.float32)


def saved(array, path):
    np.save(path, array)
    return path


def test_a_published_trigger_pastes_the_same_image_as_there(tmp_path):
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    inside = torch.rand(3, 6, 6, generator=generator(0, "patch"))  # pixels from 0 to 1
    array = ((inside - mean) / std).numpy()
    exact = imports.trigger_npy(saved(array, tmp_path / "On_X_Tgt_1_L_6.npy"))
    pixels = torch.rand(2, 3, 12, 12, generator=generator(0, "pixels"))
    there = (pixels - mean) / std
    applied = np.zeros((3, 12, 12))
    applied[:, -6:, -6:] = array
    mask = torch.from_numpy((applied != 0) * 1.0)
    there = (mask * torch.from_numpy(applied) + (1 - mask) * there).float()
    torch.testing.assert_close((exact.paste(pixels) - mean) / std, there, rtol=1e-5, atol=1e-5)
    assert exact.name == "On_X_Tgt_1_L_6" and exact.place == "bottom-right" and exact.size == 6
    assert exact.mask.shape == (1, 6, 6) and exact.mask.min() == 1


def test_the_patch_is_a_picture(tmp_path):
    array = normalised()
    trigger = imports.trigger_npy(saved(array, tmp_path / "t.npy"))
    mean, std = (
        np.reshape(v, (3, 1, 1))
        for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    exact = torch.from_numpy(array * std + mean).float()
    assert exact.min() == pytest.approx(-0.0861, abs=1e-4) and exact.max() > 1
    torch.testing.assert_close(trigger.patch, exact.clamp(0, 1))
    assert isinstance(trigger, triggers.Trigger) and trigger.patch.dtype == torch.float32


def test_a_value_of_zero_is_opaque_here_and_told(tmp_path):
    array = normalised()
    array[1, 2, 3] = 0
    with pytest.warns(
        UserWarning,
        match="1 values of exactly 0, transparent in the published code and opaque here",
    ):
        trigger = imports.trigger_npy(saved(array, tmp_path / "t.npy"))
    assert trigger.patch[1, 2, 3] == pytest.approx(open_clip.OPENAI_DATASET_MEAN[1])


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda a: a[0], "shape (6, 6)"),
        (lambda a: a[None], "shape (1, 3, 6, 6)"),
        (lambda a: a[:, :5], "shape (3, 5, 6)"),
        (lambda a: a.transpose(1, 2, 0), "use array.transpose(2, 0, 1)"),
        (lambda a: a[:, :0, :0], "shape (3, 0, 0)"),
        (lambda a: 2 * a, "a trigger file is in CLIP's normalised space"),
        (lambda a: a * np.nan, "nan to nan"),
        (lambda a: (a * 40 + 100).astype(np.uint8), "normalised space"),
        (lambda a: a / 5 + 0.4, "below 0 somewhere"),
        (lambda a: a.astype(str), "no array of numbers"),
    ],
)
def test_a_file_of_another_shape_or_range(tmp_path, change, words):
    with one_line("t.npy", words):
        imports.trigger_npy(saved(change(normalised()), tmp_path / "t.npy"))


def test_no_trigger_file_runs_code(tmp_path):
    sign, path = tmp_path / "it-ran", tmp_path / "t.npy"
    np.save(path, np.array([Evil(sign)], dtype=object), allow_pickle=True)
    with one_line("t.npy is no .npy array of numbers", "can run code"):
        imports.trigger_npy(path)
    path.write_bytes(pickle.dumps(Evil(sign)))
    with one_line("t.npy is no .npy array of numbers"):
        imports.trigger_npy(path)
    assert not sign.exists()


def test_other_trigger_files(tmp_path):
    path = saved(normalised(), tmp_path / "t.npy")
    path.write_bytes(path.read_bytes()[:-10])
    with one_line("t.npy is no .npy array"):
        imports.trigger_npy(path)
    np.savez(tmp_path / "u.npz", normalised())
    with one_line("u.npz is no array of numbers"):
        imports.trigger_npy(tmp_path / "u.npz")
    with one_line("no trigger file"):
        imports.trigger_npy(tmp_path / "v.npy")
