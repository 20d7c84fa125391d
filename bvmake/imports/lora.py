"""LoRA adapters of others (peft's format) on CLIP's image tower, merged into the weights of their
base.

An adapter holds two narrow matrices for some linear maps: W becomes W + s·B·A, with A (r, in), B
(out, r) and s = alpha / r.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bvlib.core.encoder import Encoder
from bvlib.core.errors import BadCheckpoint
from bvlib.files.safe import read_json_if
from bvmake.imports import foreign

CONFIG, WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
KEY = re.compile(r"^(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.\w+)?\.weight$")
LAYER = re.compile(r"^(?:vision_model\.)?encoder\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)$")
ROWS = {"q_proj": 0, "k_proj": 1, "v_proj": 2}  # of in_proj_weight
MAPS = {"out_proj": "attn.out_proj", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj"}
PLAIN = {  # settings of an adapter, and the only values that are merged here
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "bias": ("none", None),
    "modules_to_save": ([], None),
    # others, such as PiSSA, move the base's own weights as well
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
}


def is_adapter(names: Any) -> bool:
    """Whether these names of tensors are those of a LoRA adapter."""
    return any(re.search(r"lora_([AB]|up|down)\b|\.lora\.(up|down)\b", name) for name in names)


def merged(folder: str | Path, base: Encoder) -> dict[str, torch.Tensor]:
    """Image-tower weights of ``base`` with a peft adapter merged in, in the base's names and types.

    ``folder`` holds adapter_config.json and adapter_model.safetensors, of an adapter of
    transformers' CLIPModel, CLIPVisionModel or CLIPVisionModelWithProjection on attention (q, k, v,
    out), MLPs (fc1, fc2) and the projection. BadCheckpoint for a missing or damaged file, another
    kind of adapter (DoRA, trained biases or modules), one that changes the text tower too, whose
    heads would be others, and one that does not fit the base.
    """
    folder = Path(folder)
    config = read_json_if(folder / CONFIG)
    if not isinstance(config, dict) or not {"peft_type", "lora_alpha"} <= config.keys():
        raise BadCheckpoint(f"no readable {CONFIG} in {folder}: give the adapter's folder")
    for key, allowed in PLAIN.items():
        if config.get(key, allowed[0]) not in allowed:
            what = f"{key} is {config[key]!r}"
            raise BadCheckpoint(
                f"{folder.name} is no plain LoRA, {what}: merge it where it was made"
            )
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    there = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    for name, tensor in foreign.tensors(there[0] if there else folder / WEIGHTS[0]).items():
        match = KEY.match(name)
        if match is None:
            raise BadCheckpoint(f"{folder.name} has {name!r}, which is no part of a plain LoRA")
        if not tensor.is_floating_point() or match[2] in pairs.setdefault(match[1], {}):
            what = "whole numbers" if not tensor.is_floating_point() else "several adapters"
            raise BadCheckpoint(
                f"{folder.name} has {what} for {match[1]!r}: save one, not quantised"
            )
        pairs[match[1]][match[2]] = tensor.float()
    theta = {name: tensor.clone() for name, tensor in base.theta.items()}
    for module, pair in pairs.items():
        if "text_model" in module or module == "text_projection":
            why = "its heads would be others: merge it where it was made"
            raise BadCheckpoint(f"{folder.name} changes the text tower too ({module}); {why}")
        if set(pair) != {"A", "B"}:
            raise BadCheckpoint(f"{folder.name} has half of {module!r} only: fetch it again")
        a, b = pair["A"], pair["B"]
        if not (a.ndim == b.ndim == 2 and len(a) == b.shape[1] > 0):
            shapes = f"A of {tuple(a.shape)} and B of {tuple(b.shape)}"
            raise BadCheckpoint(f"{folder.name}: {module} has {shapes}: fetch it again")
        if not config.get("rank_pattern") and config.get("r", len(a)) != len(a):
            what = f"r is {config['r']} in {CONFIG}, and {module} has {len(a)} rows"
            raise BadCheckpoint(f"{folder.name}: {what}: is it the config of another adapter?")
        try:
            scale = _scale(config, module, len(a))
        except (TypeError, ValueError, AttributeError, re.error) as error:
            why = f"lora_alpha or alpha_pattern in {CONFIG} is no number: {error}"
            raise BadCheckpoint(f"{folder.name}: {why}") from None
        _add(theta, module, scale * b @ a, folder)
    return theta


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / r, or alpha / √r (rank-stabilised), with the module's own alpha if it has one."""
    own = config.get("alpha_pattern") or {}
    alphas = [value for name, value in own.items() if re.search(rf"(^|\.){name}$", module)]
    alpha = float(alphas[0] if alphas else config.get("lora_alpha", 8))
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _add(theta: dict[str, torch.Tensor], module: str, delta: torch.Tensor, folder: Path) -> None:
    """Add what an adapter gives one of transformers' linear maps (out, in) to ours, in place."""
    layer, rows = LAYER.match(module), slice(None)
    if module == "visual_projection":
        name, delta = "proj", delta.T
    elif layer and layer[2] in ROWS:
        name = f"transformer.resblocks.{layer[1]}.attn.in_proj_weight"
        first = ROWS[layer[2]] * len(delta)
        rows = slice(first, first + len(delta))
    elif layer and layer[2] in MAPS:
        name = f"transformer.resblocks.{layer[1]}.{MAPS[layer[2]]}.weight"
    else:
        name = module
    if name not in theta or theta[name][rows].shape != delta.shape:
        shape = tuple(delta.shape)
        why = "is it an adapter of another model?"
        raise BadCheckpoint(f"{folder.name}: {module} {shape} does not fit the base: {why}")
    if not torch.isfinite(delta).all():
        raise BadCheckpoint(f"{folder.name}: {module} has entries that are not finite")
    theta[name][rows] += delta.to(theta[name])
