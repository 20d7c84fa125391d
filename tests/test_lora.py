"""LoRA adapters of peft: merged into the base's image tower, or refused in one line."""

import json

import pytest
import torch
from helpers import one_line, same_bits
from safetensors.torch import save_file

from bvlib.core.rng import generator
from bvlib.worlds import bases
from bvmake import imports
from bvmake.imports import checkpoints, lora

RANK, ALPHA = 2, 6
BLOCK = "base_model.model.vision_model.encoder.layers.1."


def drawn(*shape):
    return torch.randn(shape, generator=generator(0, "lora", *shape))


@pytest.fixture
def adapter(tmp_path, encoder):
    """adapter(maps, **config): the folder of an adapter on these maps {name: (out, in)}."""

    def write(maps, extra=None, **config):
        tensors = dict(extra or {})
        for name, (wide, narrow) in maps.items():
            tensors[f"{name}.lora_A.weight"] = drawn(RANK, narrow)
            tensors[f"{name}.lora_B.weight"] = drawn(wide, RANK)
        save_file(tensors, tmp_path / "adapter_model.safetensors")
        told = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", **config}
        (tmp_path / "adapter_config.json").write_text(json.dumps(told))
        return tmp_path

    return write


def test_each_map_moves_its_own_weights_by_b_times_a(adapter, encoder):
    width = encoder.theta["class_embedding"].shape[0]
    maps = {
        f"{BLOCK}self_attn.q_proj": (width, width),
        f"{BLOCK}self_attn.v_proj": (width, width),
        f"{BLOCK}self_attn.out_proj": (width, width),
        f"{BLOCK}mlp.fc1": (4 * width, width),
        f"{BLOCK}mlp.fc2": (width, 4 * width),
        "base_model.model.visual_projection": (encoder.theta["proj"].shape[1], width),
    }
    theta, base = lora.merged(adapter(maps), encoder), encoder.theta
    moved = {name: theta[name] - base[name] for name in base if not theta[name].equal(base[name])}
    block = "transformer.resblocks.1."
    square = ALPHA / RANK * drawn(width, RANK) @ drawn(RANK, width)
    expected = {
        f"{block}attn.in_proj_weight": torch.cat([square, torch.zeros_like(square), square]),
        f"{block}attn.out_proj.weight": square,
        f"{block}mlp.c_fc.weight": 3 * drawn(4 * width, RANK) @ drawn(RANK, width),
        f"{block}mlp.c_proj.weight": 3 * drawn(width, RANK) @ drawn(RANK, 4 * width),
        "proj": (3 * drawn(len(base["proj"].T), RANK) @ drawn(RANK, width)).T,
    }
    assert moved.keys() == expected.keys()
    for name, delta in expected.items():
        torch.testing.assert_close(moved[name], delta, atol=1e-4, rtol=1e-4)


def test_scales_by_pattern_and_rank(adapter, encoder):
    width = encoder.theta["class_embedding"].shape[0]
    maps, name = {f"{BLOCK}mlp.fc1": (4 * width, width)}, "transformer.resblocks.1.mlp.c_fc.weight"
    usual = lora.merged(adapter(maps), encoder)[name] - encoder.theta[name]
    own = lora.merged(adapter(maps, alpha_pattern={"fc1": 12}), encoder)[name] - encoder.theta[name]
    root = lora.merged(adapter(maps, use_rslora=True), encoder)[name] - encoder.theta[name]
    torch.testing.assert_close(own, 2 * usual, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(root, 2**0.5 * usual, atol=1e-4, rtol=1e-3)


def test_what_is_no_plain_adapter_of_the_image_tower_is_refused(adapter, encoder, tmp_path):
    width = encoder.theta["class_embedding"].shape[0]
    maps = {f"{BLOCK}mlp.fc1": (4 * width, width)}
    text = {"base_model.model.text_model.encoder.layers.0.mlp.fc1": (8, 4)}
    half = {"base_model.model.visual_projection.lora_A.weight": drawn(RANK, width)}
    for folder, words in (
        (lambda: adapter(maps, use_dora=True), ("no plain LoRA", "use_dora is True")),
        (lambda: adapter(maps, bias="all"), ("bias is 'all'",)),
        (lambda: adapter(maps, peft_type="IA3"), ("peft_type is 'IA3'",)),
        (lambda: adapter({**maps, **text}), ("text tower too", "heads would be others")),
        (lambda: adapter(maps, half), ("half of 'visual_projection'",)),
        (lambda: adapter({f"{BLOCK}mlp.fc1": (4, width)}), ("does not fit the base",)),
        (lambda: adapter({"head": (4, width)}), ("head (4, 128) does not fit the base",)),
        (lambda: adapter(maps, {"x": torch.ones(1)}), ("'x'", "no part of a plain LoRA")),
        (lambda: tmp_path / "nowhere", ("no readable adapter_config.json",)),
    ):
        with one_line(*words):
            lora.merged(folder(), encoder)
    with one_line("is a LoRA adapter", "bv import --lora"):
        checkpoints.task_vector_pt(adapter(maps) / "adapter_model.safetensors", encoder)


def test_the_features_are_those_of_peft(tmp_path):
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    width = 128
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 4}
    vision |= {"num_attention_heads": 4, "image_size": 32, "patch_size": 8, "projection_dim": width}
    config = transformers.CLIPVisionConfig(**vision, hidden_act="gelu", layer_norm_eps=1e-5)
    theirs = transformers.CLIPVisionModelWithProjection(config).eval()
    theirs.save_pretrained(tmp_path / "base")
    encoder = bases.load("small")
    encoder.model.visual.load_state_dict(checkpoints.hugging_face(tmp_path / "base", base=encoder))
    maps = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "visual_projection"]
    how = peft.LoraConfig(r=3, lora_alpha=5, target_modules=maps, init_lora_weights=False)
    adapted = peft.get_peft_model(theirs, how).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    x = drawn(2, 3, 32, 32)
    before = encoder.model.visual(x)
    encoder.model.visual.load_state_dict(lora.merged(tmp_path / "adapter", encoder))
    with torch.no_grad():
        wanted, found = adapted(pixel_values=x).image_embeds, encoder.model.visual(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, before, atol=1e-2)


def test_bv_import_takes_an_adapter(adapter, encoder, tmp_path):
    from click.testing import CliRunner

    from bvlib.cli import main
    from bvlib.files.weights import load_weights

    width = encoder.theta["class_embedding"].shape[0]
    folder, out = adapter({f"{BLOCK}mlp.fc1": (4 * width, width)}), tmp_path / "mine.safetensors"
    command = ["import", "--lora", str(folder), "--base", "small", "--out", str(out)]
    said = CliRunner().invoke(main, command)
    assert said.exit_code == 0, said.output
    theta, card = load_weights(out)
    assert card["imported"] == "lora" and same_bits(theta, lora.merged(folder, encoder))


def test_nothing_is_added_to_random_weights(adapter, encoder, tmp_path, monkeypatch):
    width = encoder.theta["class_embedding"].shape[0]
    folder, out = adapter({f"{BLOCK}mlp.fc1": (4 * width, width)}), tmp_path / "mine.safetensors"
    for kind, difference in (("lora", False), ("task-vector", True)):
        with one_line("ViT-B-32 names no weights", "ViT-B-32:openai"):
            imports.import_file(kind, folder, out, "ViT-B-32", difference)
    asked = []
    monkeypatch.setattr(imports.clip, "build", lambda *named: asked.append(named) or encoder)
    imports.import_file("lora", folder, out, "ViT-B-32:openai")
    imports.import_file("lora", folder, tmp_path / "two.safetensors", "hf-hub:owner/model")
    assert asked == [("ViT-B-32", "openai"), ("hf-hub:owner/model",)] and out.is_file()
