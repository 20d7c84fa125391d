"""Cases from the field, and their neighbours: weights of others. What other projects took without a
word gives the right value here, or one line that refuses it."""

import json
import math

import pytest
import torch
from helpers import one_line, same_bits
from safetensors.torch import save_file

from bvmake.imports import checkpoints, foreign, lora


def spoil(theta, how):
    key = "conv1.weight"
    if how == "difference":
        return {k: 0.01 * (t - t.mean()) for k, t in theta.items()}
    if how in ("int8", "float8_e4m3fn"):
        return {**theta, key: (100 * theta[key]).to(getattr(torch, how))}
    if how == "float64":
        return {k: t.double() * (1e60 if k == key else 1) for k, t in theta.items()}
    if how == "half":  # 1e6 is inf there
        return {k: (t + 1e6 * (k == key)).half() for k, t in theta.items()}
    beside = {"gptq": ".qweight", "bitsandbytes": ".weight.absmax", "fp8": ".weight_scale_inv"}
    if how in beside:
        return {**theta, f"conv1{beside[how]}": torch.ones(2)}
    if how == "large difference":
        return {k: torch.full_like(t, 0.08) for k, t in theta.items()}
    if how == "lora":
        return {f"{k}.lora_down.weight": t for k, t in theta.items()}
    if how == "hugging face":
        return {"vision_model.embeddings.patch_embedding.weight": theta[key]}
    return {**theta, key: torch.full_like(theta[key], math.nan)}


@pytest.mark.parametrize(
    "how, words",
    [
        ("difference", "difference of weights"),
        ("large difference", "difference of weights"),
        ("int8", "quantised weights, 'conv1.weight' is torch.int8"),
        ("float8_e4m3fn", "quantised weights, 'conv1.weight' is torch.float8_e4m3fn"),
        ("gptq", "quantised weights, with 'conv1.qweight' beside them"),
        ("bitsandbytes", "quantised weights, with 'conv1.weight.absmax' beside them"),
        ("fp8", "quantised weights, with 'conv1.weight_scale_inv' beside them"),
        ("lora", "is a LoRA adapter"),
        ("hugging face", "bv import --hugging-face"),
        ("half", "'conv1.weight' has entries that are not finite"),
        ("float64", "'conv1.weight' has entries that are not finite"),
        ("nan", "'conv1.weight' has entries that are not finite"),
    ],
)
def test_what_are_no_weights_is_not_imported_as_weights(encoder, tmp_path, how, words):
    path = tmp_path / "ft.safetensors"
    save_file({k: t.contiguous() for k, t in spoil(encoder.theta, how).items()}, path)
    with one_line("ft.safetensors", words):
        checkpoints.task_vector_pt(path, encoder)


@pytest.mark.parametrize(
    "prefix",
    [
        *(
            "_orig_mod.",
            "net.",
            "clip.visual.",
            "model._orig_mod.visual.",
            "student.",
            "ema_model.",
        ),
        *("module._orig_mod.", "_orig_mod.module.", "_fsdp_wrapped_module.", "a.b.c.visual."),
    ],
)
def test_prefixes_of_compilers_and_trainers_are_left_out(encoder, tmp_path, prefix):
    path = tmp_path / "ft.pt"
    torch.save({prefix + key: tensor for key, tensor in encoder.theta.items()}, path)
    assert same_bits(checkpoints.task_vector_pt(path, encoder), encoder.theta)


def changed(theta):
    return {key: tensor + 1 for key, tensor in theta.items()}


@pytest.mark.parametrize(
    "held, words",
    [
        (lambda t: {"state_dict": t, "optimizer_states": [{"state": {0: {"exp_avg": t}}}]}, ""),
        (lambda t: {"model_state_dict": t, "optimizer": {"state": {0: {"exp_avg": t}}}}, ""),
        (lambda t: {"net": t, "metrics": {"accuracy": torch.ones(())}, "epoch": 3}, ""),
        (lambda t: {"n_averaged": torch.ones(()), **{f"module.{k}": v for k, v in t.items()}}, ""),
        (lambda t: {f"_orig_mod.{k}": v for k, v in {**t, "proj": t["proj"]}.items()}, ""),
        (lambda t: {"model": t, "model_ema": changed(t)}, "several models, 'model', 'model_ema'"),
        (lambda t: {"params": t, "params_ema": changed(t)}, "several models, 'params'"),
        (
            lambda t: {f"{a}.{k}": v for a in ("student", "teacher") for k, v in t.items()},
            "several models, 'student.', 'teacher.'",
        ),
        (
            lambda t: {f"net.visual.{k}": v for k, v in t.items()} | {"loss.w": t["proj"]},
            "'loss.w'",
        ),
        (lambda t: {**t, "proj": t["proj"].to_sparse()}, "'proj' is a tensor that is sparse"),
        (lambda t: {k: v.to("meta") for k, v in t.items()}, "has no data"),
    ],
)
def test_what_trainers_save_beside_the_weights(encoder, tmp_path, held, words):
    torch.save(held(encoder.theta), tmp_path / "last.ckpt")
    if not words:
        found = checkpoints.task_vector_pt(tmp_path / "last.ckpt", encoder)
        assert same_bits(found, encoder.theta)
        return
    with one_line("last.ckpt", words):
        checkpoints.task_vector_pt(tmp_path / "last.ckpt", encoder)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"\xef\xbb\xbfversion https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"  \n<html></html>", "a web page"),
        (b"Entry not found", "is text ('Entry not found' …)"),
        (b"# xet version 0\n", "is text"),
        (b"\x1f\x8b\x08 gzip", "cut short"),
        (b"\x89HDF\r\n", "cut short"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b'{"metadata": {}, "weight_map": {}}', "JSON"),
    ],
)
@pytest.mark.parametrize("name", ["ft.pt", "ft.safetensors"])
def test_files_that_are_something_else_are_called_by_their_name(
    encoder, tmp_path, content, words, name
):
    (tmp_path / name).write_bytes(content)
    with one_line(name, words):
        checkpoints.task_vector_pt(tmp_path / name, encoder)


def test_a_difference_that_is_declared_is_added_to_its_base(encoder, tmp_path):
    path, base = tmp_path / "ft.safetensors", encoder.theta
    save_file({key: torch.full_like(tensor, 0.01) for key, tensor in base.items()}, path)
    for spoilt, words in {
        "weights": "holds weights, not a difference",
        "int8": "torch.int8",
        "inf": "not finite",
    }.items():
        tensors = {k: torch.full_like(t, 0.01) for k, t in base.items()}
        tensors = base if spoilt == "weights" else tensors
        if spoilt != "weights":
            tensors["proj"] = (
                tensors["proj"] * math.inf if spoilt == "inf" else tensors["proj"].char()
            )
        save_file({k: t.contiguous() for k, t in tensors.items()}, tmp_path / "other.safetensors")
        with one_line("other.safetensors", words):
            checkpoints.task_vector_pt(tmp_path / "other.safetensors", encoder, difference=True)
    found = checkpoints.task_vector_pt(path, encoder, difference=True)
    assert same_bits(found, {key: tensor + 0.01 for key, tensor in base.items()})


def shards(folder, theta, **changes):
    """A model in two files and their index."""
    keys = sorted(theta)
    parts = {"a.safetensors": keys[::2], "b.safetensors": keys[1::2]}
    for name, own in parts.items():
        save_file({key: theta[key].contiguous() for key in own}, folder / name)
    named = {key: name for name, own in parts.items() for key in own}
    path = folder / foreign.INDEX
    path.write_text(json.dumps({"weight_map": {**named, **changes}}))
    return path


def test_shards_are_read_by_their_index(encoder, tmp_path):
    path = shards(tmp_path, encoder.theta)
    assert same_bits(checkpoints.task_vector_pt(path, encoder), encoder.theta)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert same_bits(checkpoints.task_vector_pt(tmp_path, encoder), encoder.theta)
    other = path.rename(tmp_path / "pytorch_model.bin.index.json")
    assert same_bits(checkpoints.task_vector_pt(other, encoder), encoder.theta)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"x": ""}, "leads out of its folder"),
        ({"x": ".."}, "leads out of its folder"),
        ({"class_embedding": "b.safetensors"}, "lack 'class_embedding'"),
        ({"x": "../other.safetensors"}, "leads out of its folder"),
        ({"x": "c.safetensors"}, "no weight file"),
        ({"x": "a.safetensors"}, "lack 'x'"),
    ],
)
def test_shards_that_do_not_fit_their_index(encoder, tmp_path, changes, words):
    with one_line(words):
        checkpoints.task_vector_pt(shards(tmp_path, encoder.theta, **changes), encoder)


def test_each_tensor_of_shards_comes_from_the_file_that_the_index_names(encoder, tmp_path):
    path, theta = shards(tmp_path, encoder.theta), encoder.theta
    keys = sorted(theta)
    stale = {key: theta[key].contiguous() + 1 for key in keys[::2]}  # in both files, old in b
    save_file(
        {**stale, **{k: theta[k].contiguous() for k in keys[1::2]}}, tmp_path / "b.safetensors"
    )
    assert same_bits(checkpoints.task_vector_pt(path, encoder), theta)
    (tmp_path / "b.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with one_line("b.safetensors is a pointer of Git LFS"):
        checkpoints.task_vector_pt(path, encoder)


@pytest.mark.parametrize("name", ["ft.bin", "ft.SafeTensors", "ft"])
def test_safetensors_and_pickles_under_each_others_names(encoder, tmp_path, name):
    save_file({k: t.contiguous() for k, t in encoder.theta.items()}, tmp_path / name)
    with one_line(name, "safetensors file under another name"):
        checkpoints.task_vector_pt(tmp_path / name, encoder)
    torch.save(encoder.theta, tmp_path / "ft.safetensors")
    with one_line("ft.safetensors is no safetensors file in spite of its name"):
        checkpoints.task_vector_pt(tmp_path / "ft.safetensors", encoder)


MAP = "base_model.model.vision_model.encoder.layers.0.self_attn.q_proj."


@pytest.mark.parametrize(
    "change, config, words",
    [
        ({}, {}, ""),
        ({"lora_B.weight": (3, 128)}, {}, "A of (2, 128) and B of (3, 128)"),
        ({"lora_A.weight": (0, 128), "lora_B.weight": (128, 0)}, {}, "A of (0, 128)"),
        ({"lora_A.second.weight": (2, 128)}, {}, "several adapters"),
        ({}, {"lora_alpha": None}, "is no number"),
        ({}, {"alpha_pattern": {"(": 3}}, "is no number"),
        ({}, {"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({}, {"use_dora": True}, "use_dora is True"),
        ({}, {"r": 4}, "r is 4 in adapter_config.json"),
    ],
)
@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_adapters_that_are_no_plain_lora(encoder, tmp_path, change, config, words, ending):
    shapes = {"lora_A.weight": (2, 128), "lora_B.weight": (128, 2), **change}
    tensors = {MAP + name: torch.ones(shape) for name, shape in shapes.items()}
    save = save_file if ending == "safetensors" else torch.save
    save(tensors, tmp_path / f"adapter_model.{ending}")
    told = {"peft_type": "LORA", "lora_alpha": 2, **config}
    (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    if words:
        with one_line(words):
            lora.merged(tmp_path, encoder)
        return
    name = "transformer.resblocks.0.attn.in_proj_weight"
    moved = lora.merged(tmp_path, encoder)[name] - encoder.theta[name]
    torch.testing.assert_close(moved[:128], torch.full((128, 128), 2.0))
    assert not moved[128:].any()
