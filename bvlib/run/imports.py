"""Files that others made, in our names: fine-tuned checkpoints, Hugging Face CLIP weights,
published triggers.

Nothing here runs code that a file brings: pickles go through ``torch.load(weights_only=True)``,
arrays through ``np.load(allow_pickle=False)``, the rest is safetensors. What comes out is a state
dict of the image tower in open_clip's names ("conv1.weight",
"transformer.resblocks.0.attn.in_proj_weight", …) or a :class:`bvlib.attacks.triggers.Trigger`.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bvlib.attacks.triggers import Trigger
from bvlib.core.encoder import Encoder
from bvlib.core.errors import BadCheckpoint, BvError
from bvlib.core.vectors import StateDict
from bvlib.files import foreign
from bvlib.files.safe import file_sha256, read_json_if
from bvlib.files.weights import check_matches, save_weights
from bvlib.run import lora
from bvlib.worlds import bases, clip

# What compilers, trainers and other projects put in front of a tensor's name.
WRAPPERS = re.compile(r"^((module|model|image_encoder|clip_model|_orig_mod|net|clip)\.)*")
# What stands beside the image tower in a whole model: the text tower, the scale, a head.
TEXT = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
SIZES = ("text.", "attn_mask", "logit_scale", "logit_bias", "input_resolution", "context_length")
BESIDE = (*TEXT, *SIZES, "vocab_size", "classification_head.")
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
MEAN, STD = bases.open_clip.OPENAI_DATASET_MEAN, bases.open_clip.OPENAI_DATASET_STD
# the published clamp: over all channels, -1.792 to 2.146
LOW, HIGH = -MEAN[0] / STD[0], (1 - MEAN[2]) / STD[2]


def import_file(
    kind: str, path: str | Path, out: str | Path, base: str | None = None, difference: bool = False
) -> Path:
    """One file of others as safetensors with a card at ``out``: a "task-vector", "hugging-face"
    weights, a "trigger", or a folder of "lora".

    The functions below and :mod:`bvlib.run.lora` say what each may hold. ``base`` is what weights
    must fit: a shipped base, a .safetensors file with its card, or (task-vector, lora) an open_clip
    name, with its weights as "ViT-B-32:openai"; ``difference``: a task-vector's file holds what is
    to be added to it. A trigger's file holds patch (3, s, s) and mask (1, s, s). Raises BvError for
    an unknown base, a base without weights where something is added to them, a file of another
    form, an ``out`` that is there or no .safetensors.
    """
    path, out = Path(path).expanduser(), Path(out).expanduser()
    if out.exists() or out.suffix != ".safetensors":
        why = "is there already" if out.exists() else "is no .safetensors file"
        raise BvError(f"{out} {why}: name another --out")
    told: dict[str, Any] = {"base": base}
    if kind == "trigger":
        made = trigger_npy(path)
        theta = {"patch": made.patch, "mask": made.mask}
        told = {"place": made.place, "name": made.name}
    elif kind == "hugging-face":
        theta = hugging_face(path, bases.load(base) if base else None)
    elif base is None:
        raise BvError(f"{path.name} needs --base, the model that it must fit, such as ViT-B-32")
    else:
        encoder = _base(base, added=kind == "lora" or difference)
        if kind == "lora":
            theta = lora.merged(path, encoder)
        else:
            theta = task_vector_pt(path, encoder, difference)
    if path.is_file():
        told["from_sha256"] = file_sha256(path)
    save_weights(out, theta, {"imported": kind, "from": path.name, **told})
    return out


def _base(name: str, added: bool) -> Encoder:
    """A base by its name. BvError when something is to be ``added`` to its weights and an open_clip
    name brings none: they would be random."""
    if name in bases.shipped() or name.endswith(".safetensors"):
        return bases.load(name)
    if name.startswith(clip.PLACES):
        return clip.build(name)
    architecture, _, tag = name.partition(":")
    if added and not tag:
        mend = f"name them as {name}:openai, or a .safetensors file"
        raise BvError(f"{name} names no weights, and the file is added to the base's: {mend}")
    return clip.build(architecture, tag or None)


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
    path = Path(path)
    weights = foreign.tensors(path)
    if lora.is_adapter(weights):
        mend = "bv import --lora its folder --base its base"
        raise BadCheckpoint(f"{path.name} is a LoRA adapter, not weights: {mend}")
    theta = _image_tower(weights, path.name)
    if difference:
        check_matches(theta, base.theta, path.name)
        theta = {key: base.theta[key] + tensor for key, tensor in theta.items()}
    return _fitted(theta, base, path.name)


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
    path = Path(path)
    if path.is_dir():
        names = ("model.safetensors", foreign.INDEX, "pytorch_model.bin")
        path /= next((name for name in names if (path / name).is_file()), names[0])
    weights = {
        WRAPPERS.sub("", key, count=1): tensor for key, tensor in foreign.tensors(path).items()
    }
    if base is None:
        return _from_hugging_face(weights, path.name, None)
    theta = _from_hugging_face(weights, path.name, base.theta["proj"])
    theta = _fitted(theta, base, path.name)
    _check_config(path.with_name("config.json"), path.name, base)
    return theta


def trigger_npy(path: str | Path) -> Trigger:
    """The trigger (3, side, side) of a published BadMerging file, such as
    On_CIFAR100_Tgt_1_L_22.npy.

    There: float32 (3, side, side), RGB, in CLIP's *normalised* space (x - mean) / std, clamped to
    one range for all channels, -1.792 to 2.146, so that pixels reach from -0.086 to 1.058 (in the
    two shipped optimised files 16 % and 29 % of the values lie outside 0 to 1). It is pasted
    bottom right after normalisation, on 224 px, and its mask is "value ≠ 0", channel by channel: a
    value of exactly 0 lets the image through.

    Here: pixels, clipped to [0, 1] as a picture is. The mask is explicit and 1 everywhere, which is
    the same for all shipped files as none has a 0; a file that has some is told by a warning.

    Raises BvError for another shape or range, pixels in 0 to 1 or 0 to 255 included, and for
    objects (they can run code).
    """
    path = Path(path)
    if not path.is_file():
        raise BvError(f"no trigger file {path}: check the path")
    try:
        array = np.load(path, allow_pickle=False)
    except Exception:  # ValueError for objects and for damage, EOFError, OSError
        why = "nothing else is read, as pickled objects can run code"
        raise BvError(f"{path.name} is no .npy array of numbers: {why}") from None
    form = "a trigger file holds one float array (3, side, side)"
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise BvError(f"{path.name} is no array of numbers: {form}")
    if not array.size or array.shape != (3, *array.shape[-1:] * 2):
        last = array.ndim == 3 and array.shape[-1] == 3
        hint = "; its channels come last, use array.transpose(2, 0, 1)" if last else ""
        raise BvError(f"{path.name} has shape {array.shape}: {form}{hint}")
    low, high = float(array.min()), float(array.max())
    inside = low >= LOW - 1e-3 and high <= HIGH + 1e-3  # not so when they are no numbers
    if not inside or (low >= 0 and high <= 1):
        space = f"CLIP's normalised space, {LOW:.3f} to {HIGH:.3f} and below 0 somewhere"
        told = f"goes from {low:.3g} to {high:.3g}: a trigger file is in {space}"
        raise BvError(f"{path.name} {told}; make pixels a Trigger directly")
    if zeros := int((array == 0).sum()):
        said = "exactly 0, transparent in the published code and opaque here"
        warnings.warn(f"{path.name} has {zeros} values of {said}", stacklevel=2)
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    patch = (torch.from_numpy(array.astype(np.float64)) * std + mean).clamp(0, 1).float()
    return Trigger(patch, torch.ones(1, *patch.shape[1:]), name=path.stem)


def _image_tower(weights: StateDict, name: str) -> StateDict:
    """The image tower's part, in its own names, of a state dict of whatever wraps it."""
    peeled: StateDict = {}
    for key, tensor in weights.items():
        own = WRAPPERS.sub("", key, count=1)
        if own in peeled:
            raise BadCheckpoint(f"{name} has {own!r} twice: save one model's state dict")
        peeled[own] = tensor
    start = "visual."
    tower = {key.removeprefix(start): t for key, t in peeled.items() if key.startswith(start)}
    if not tower:
        return {key: t for key, t in peeled.items() if not key.startswith("classification_head.")}
    if unknown := [key for key in peeled if not key.startswith((start, *BESIDE))]:
        raise BadCheckpoint(f"{name} has tensors of no CLIP model: {foreign.some(unknown)}")
    return tower


def _check_names(theta: StateDict, wanted: list[str], what: str) -> None:
    """BadCheckpoint naming up to three missing and three unknown tensors, when there are any."""
    found = {"lacks": [name for name in wanted if name not in theta]}
    found["has unknown"] = [name for name in theta if name not in wanted]
    if parts := [f"{word} {foreign.some(keys)}" for word, keys in found.items() if keys]:
        raise BadCheckpoint(f"{what}: it {' and '.join(parts)}: was it made from another model?")


def _fitted(theta: StateDict, base: Encoder, name: str) -> StateDict:
    """The weights in the base's order and types. BadCheckpoint naming what is missing, unknown, or
    of another shape."""
    _check_names(theta, list(base.theta), f"{name} does not fit the base")
    check_matches(theta, base.theta, name)
    _sound(theta, name)
    return {key: theta[key].to(tensor, copy=True) for key, tensor in base.theta.items()}


def _sound(theta: Mapping[str, torch.Tensor], name: str) -> None:
    """BadCheckpoint for what are no weights: whole numbers, entries that are not finite, or a
    difference of weights, whose layer norms lie near 0 and not near 1."""
    for key, tensor in theta.items():
        if not tensor.is_floating_point():
            what = f"{key!r} is {tensor.dtype}"
            raise BadCheckpoint(f"{name} holds quantised weights, {what}: import those before it")
        if not torch.isfinite(tensor).all():
            what = f"{key!r} has entries that are not finite"
            raise BadCheckpoint(f"{name} is damaged, {what}: fetch or train it again")
    norms = [t for key, t in theta.items() if re.search(r"ln_\w+\.weight$", key)]
    if norms and max(float(t.float().abs().median()) for t in norms) < 0.05:
        mend = "say so by --difference, and the base is added"
        raise BadCheckpoint(f"{name} is a difference of weights, not weights: {mend}")


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
