"""Weights of others as a state dict of the image tower in open_clip's names ("conv1.weight",
"transformer.resblocks.0.attn.in_proj_weight", …): fine-tuned checkpoints, Hugging Face's CLIP.

Nothing here runs code that a file brings: :mod:`bvmake.imports.foreign` reads it.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from bvlib.core.encoder import Encoder
from bvlib.core.errors import BadCheckpoint, BvError
from bvlib.core.vectors import StateDict
from bvlib.files.safe import read_json_if
from bvlib.files.weights import check_matches
from bvlib.worlds import clip
from bvmake.imports import foreign, lora

# What compilers, trainers and other projects put in front of a tensor's name.
WRAPPERS = re.compile(r"^((module|model|image_encoder|clip_model|net|clip)\.)*")
# And inside of names: torch.compile, FSDP, DeepSpeed.
INNER = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
QUANTISED = re.compile(
    r"\.(qweight|qzeros|g_idx|SCB|absmax|quant_map|\w*quant_state.*|weight_scale\w*)$"
)
# What stands beside the image tower in a whole model: the text tower, the scale, a head.
TEXT = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
SIZES = ("text.", "attn_mask", "logit_scale", "logit_bias", "input_resolution", "context_length")
ASIDE = ("classification_head.", "n_averaged")  # torch's AveragedModel counts
BESIDE = (*TEXT, *SIZES, "vocab_size", *ASIDE)
DEQUANTISE = "import them from before that, or dequantise them where they were made"
HF_BESIDE = ("text_model.", "text_projection.", "logit_scale", "embeddings.position_ids")
HF_NAMES = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
}
HF_NORMS = {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}  # sic: it is spelt so there
HF_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def task_vector_pt(path: str | Path, base: Encoder, difference: bool = False) -> StateDict:
    """Image-tower weights θ_t of a fine-tuned checkpoint (.pt, .pth, .bin or .safetensors), in the
    names and types of the base.

    The file holds a state dict, plain or under "state_dict" or "model", of an image tower or a
    whole model, with the prefixes that trainers and compilers leave (``module.``, ``_orig_mod.``,
    …); the text tower beside it is left out. It holds weights, not differences: the task vector is
    ``TaskVector.between(theta, base.theta)``. With ``difference`` it holds one, θ_t − θ_0, to which
    the base is added.

    Most published Task Arithmetic checkpoints are whole pickled ``ImageEncoder`` modules, which
    run code when loaded. They are refused with a BadCheckpoint that says how to convert them
    elsewhere; so are damaged files and names or shapes that do not fit the base.
    """
    path = foreign.within(path)
    weights = _peeled(foreign.tensors(path), path.name)
    if any("embeddings.patch_embedding" in key for key in weights):
        raise BadCheckpoint(f"{path.name} has Hugging Face's names: bv import --hugging-face it")
    return _fitted(_image_tower(weights, path.name), base, path.name, difference)


def hugging_face(path: str | Path, base: Encoder | None = None) -> StateDict:
    """Image-tower weights of a Hugging Face CLIPModel, CLIPVisionModelWithProjection or
    CLIPVisionModel, in open_clip's names.

    ``path`` is the weight file (model.safetensors or pytorch_model.bin) or its folder. q, k and v
    are stacked to in_proj (3D, D), the projection is turned to (D, E).

    A CLIPVisionModel has no projection: it is taken from ``base``, which the result must then fit.
    A config.json beside the weights that names another activation or number of heads than the
    base's is refused, since no tensor shows either.

    Raises BadCheckpoint for a file that needs code, is damaged, or has missing or unknown tensors;
    BvError for what does not fit.
    """
    path = foreign.within(path)
    weights = _peeled(foreign.tensors(path), path.name)
    if base is None:
        return _from_hugging_face(weights, path.name, None)
    theta = _from_hugging_face(weights, path.name, base.theta["proj"])
    theta = _fitted(theta, base, path.name)
    _check_config(path.with_name("config.json"), path.name, base)
    return theta


def _peeled(weights: StateDict, name: str) -> StateDict:
    """A state dict without what wrappers put before its names: known ones, and whatever stands
    before the class embedding. BadCheckpoint for several models, adapters, quantised weights."""
    if lora.is_adapter(weights):
        mend = "bv import --lora its folder --base its base"
        raise BadCheckpoint(f"{name} is a LoRA adapter, not weights: {mend}")
    if quantised := [key for key in weights if QUANTISED.search(key)]:
        what = f"{foreign.some(quantised)} beside them"
        raise BadCheckpoint(f"{name} holds quantised weights, with {what}: {DEQUANTISE}")
    plain = [INNER.sub("", key) for key in weights]
    starts = {key.removesuffix("class_embedding") for key in plain if "class_embedding" in key}
    outer = {re.sub(r"(visual\.|(vision_model\.)?embeddings\.)$", "", start) for start in starts}
    if len({WRAPPERS.sub("", each) for each in outer}) > 1:
        raise BadCheckpoint(f"{name} holds several models, {foreign.some(sorted(outer))}: save one")
    before, peeled = max(outer, default=""), {}
    for key, tensor in zip(plain, weights.values(), strict=True):
        own = WRAPPERS.sub("", key.removeprefix(before), count=1)
        if own in peeled:
            raise BadCheckpoint(f"{name} has {own!r} twice: save one model's state dict")
        peeled[own] = tensor
    return peeled


def _image_tower(peeled: StateDict, name: str) -> StateDict:
    """The image tower's part, in its own names, of a state dict of whatever wraps it."""
    start = "visual."
    tower = {key.removeprefix(start): t for key, t in peeled.items() if key.startswith(start)}
    if not tower:
        return {key: t for key, t in peeled.items() if not key.startswith(ASIDE)}
    if unknown := [key for key in peeled if not key.startswith((start, *BESIDE))]:
        what = f"tensors of no CLIP model: {foreign.some(unknown)}"
        raise BadCheckpoint(f"{name} has {what}: leave them out where they change no feature")
    return tower


def _check_names(theta: StateDict, wanted: list[str], what: str) -> None:
    """BadCheckpoint naming up to three missing and three unknown tensors, when there are any."""
    found = {"lacks": [name for name in wanted if name not in theta]}
    found["has unknown"] = [name for name in theta if name not in wanted]
    if parts := [f"{word} {foreign.some(keys)}" for word, keys in found.items() if keys]:
        raise BadCheckpoint(f"{what}: it {' and '.join(parts)}: was it made from another model?")


def _fitted(theta: StateDict, base: Encoder, name: str, difference: bool = False) -> StateDict:
    """The weights in the base's order and types; a ``difference`` is added to the base's.
    BadCheckpoint naming what is missing, unknown, of another shape, or no such weights."""
    _check_names(theta, list(base.theta), f"{name} does not fit the base")
    check_matches(theta, base.theta, name)
    _sound(theta, name, difference)
    own = {key: theta[key].to(tensor, copy=True) for key, tensor in base.theta.items()}
    return {key: base.theta[key] + tensor for key, tensor in own.items()} if difference else own


def _sound(theta: Mapping[str, torch.Tensor], name: str, difference: bool = False) -> None:
    """BadCheckpoint for what are no weights: whole numbers or a byte an entry, entries that are not
    finite, or (not ``difference``) a difference, whose layer norms lie near 0 and not near 1."""
    for key, tensor in theta.items():
        if not tensor.is_floating_point() or tensor.dtype.itemsize == 1:
            what = f"{key!r} is {tensor.dtype}"
            raise BadCheckpoint(f"{name} holds quantised weights, {what}: {DEQUANTISE}")
        if not torch.isfinite(tensor.float()).all():
            what = f"{key!r} has entries that are not finite"
            raise BadCheckpoint(f"{name} is damaged, {what}: fetch or train it again")
    norms = [t for key, t in theta.items() if re.search(r"ln_\w+\.weight$", key)]
    found = bool(norms) and max(float(t.float().abs().median()) for t in norms) < 0.3
    if found and not difference:
        mend = "say so by --difference, and the base is added"
        raise BadCheckpoint(f"{name} is a difference of weights, not weights: {mend}")
    if norms and difference and not found:
        raise BadCheckpoint(f"{name} holds weights, not a difference: leave --difference out")


def _from_hugging_face(weights: StateDict, name: str, proj: torch.Tensor | None) -> StateDict:
    """Hugging Face's names and layout to open_clip's, with this projection if they have none.
    BadCheckpoint naming what is missing or unknown."""
    theirs = {key.removeprefix("vision_model."): tensor for key, tensor in weights.items()}
    theirs = {key: tensor for key, tensor in theirs.items() if not key.startswith(HF_BESIDE)}
    found = [re.match(r"encoder\.layers\.(\d+)\.", key) for key in theirs]
    layers = len({match[1] for match in found if match})
    parts = {ours: [key] for ours, key in HF_NAMES.items()}  # what is stacked to one of ours
    for end in ("weight", "bias"):
        parts |= {f"{a}.{end}": [f"{b}.{end}"] for a, b in HF_NORMS.items()}
        for i in range(layers):
            ours, block = f"transformer.resblocks.{i}.", f"encoder.layers.{i}."
            parts |= {f"{ours}{a}.{end}": [f"{block}{b}.{end}"] for a, b in HF_BLOCK.items()}
            qkv = [f"{block}self_attn.{letter}_proj.{end}" for letter in "qkv"]
            parts[f"{ours}attn.in_proj_{end}"] = qkv
    if "visual_projection.weight" in theirs:
        proj = theirs.pop("visual_projection.weight").T
    if proj is None:
        mend = "give base=, whose projection is then taken"
        raise BadCheckpoint(f"{name} has no visual_projection, as no CLIPVisionModel has: {mend}")
    wanted = [] if layers else ["encoder.layers"]
    wanted += [key for keys in parts.values() for key in keys]
    _check_names(theirs, wanted, f"{name} is no image tower of Hugging Face's CLIP")
    theta = {ours: torch.cat([theirs[key] for key in keys]) for ours, keys in parts.items()}
    theta["class_embedding"] = theta["class_embedding"].reshape(-1)
    theta["proj"] = proj.clone(memory_format=torch.contiguous_format)
    _sound(theta, name)
    return theta


def _check_config(config: Path, name: str, base: Encoder) -> None:
    """BvError when the config beside Hugging Face weights, if there is one, and an encoder differ
    in what no tensor shows."""
    if not config.is_file():
        return
    said = read_json_if(config)
    if not isinstance(said, dict):
        raise BvError(f"no readable config at {config}: fetch it again")
    said = said.get("vision_config") or said
    quick = said.get("hidden_act", "quick_gelu") == "quick_gelu"  # the default there
    if quick != clip.uses_quick_gelu(base.model):
        kind, word = {True: "QuickGELU", False: "GELU"}, "with" if quick else "without"
        both = f"was trained with {kind[quick]} and the base has {kind[not quick]}"
        mend = f"build the base {word} '-quickgelu' in its name (open_clip issue 771)"
        raise BvError(f"{name} {both}: {mend}")
    heads = said.get("num_attention_heads", 12)  # the default there
    has = base.model.visual.transformer.resblocks[0].attn.num_heads
    if heads != has:
        both = f"has {heads} attention heads and the base {has}"
        raise BvError(f"{name} {both}: use a base of its architecture")
