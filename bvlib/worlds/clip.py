"""Real CLIP encoders: any open_clip model by name, with the activation its weights were trained
with.

The trap (open_clip issue 771): OpenAI's weights, and several others, were trained with QuickGELU,
x·σ(1.702 x). In open_clip 3.3.0 ``create_model("ViT-B-32", "openai")`` puts the exact GELU there
and only warns, and a fine-tuned file loaded by its path does not even do that: every number is
then a little wrong. So :func:`build` takes the activation from the tag, the card records it, and
:func:`check_activation` looks at the modules themselves.
"""

import difflib
import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bvlib.core.device import default_device
from bvlib.core.encoder import Encoder
from bvlib.core.errors import BadCheckpoint, BvError, reason, told_as, unknown
from bvlib.core.rng import derive
from bvlib.files.weights import digest, load_weights, save_weights
from bvlib.worlds import bases
from bvlib.worlds.bases import open_clip

PLACES = ("hf-hub:", "local-dir:")  # names that bring their own config and weights


@dataclass
class KeptHeads(Encoder):
    """An encoder whose heads are kept in ``folder`` as safetensors, since those of many classes and
    templates take a real text tower a while."""

    folder: Path | None = None

    def head(self, classnames: Sequence[str], prompts: Sequence[str]) -> torch.Tensor:
        """See :meth:`Encoder.head`.

        The file's name is a hash of the class names, the templates, their tokens, and the text
        tower with its activation, so another model never gets this head. A damaged file is made
        again with a warning.
        """
        classnames, prompts = list(classnames), list(prompts)
        key = (tuple(classnames), tuple(prompts))
        if key in self._heads or self.folder is None:
            return super().head(classnames, prompts)
        tokens = self.tokenizer(["a photo", *classnames])  # tells one tokenizer from another
        whole = self.model.state_dict()
        text = {key: value for key, value in whole.items() if not key.startswith("visual.")}
        said = {
            "classnames": classnames,
            "templates": prompts,
            "tokens": digest({"tokens": tokens}),
            "text_sha256": digest(text),
            "quick_gelu": uses_quick_gelu(self.model),
        }
        stem = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
        path = self.folder / f"head-{stem}.safetensors"
        if path.is_file():
            try:
                self._heads[key] = load_weights(path)[0]["head"].to(self.device)
                return self._heads[key]
            except (BadCheckpoint, KeyError, ValueError) as error:  # the file, or its content
                warnings.warn(f"head made again: {reason(error)}", stacklevel=2)
        head = super().head(classnames, prompts)
        save_weights(path, {"head": head}, {**said, "model": self.name})
        return head


def build(
    name: str,
    pretrained: str | None = None,
    *,
    cache_dir: str | None = None,
    device=None,
    seed: int = 0,
    heads: str | Path | None = None,
) -> Encoder:
    """An encoder around an open_clip model: "ViT-B-32", "ViT-B-16", "ViT-L-14", or any other name
    open_clip knows.

    ``pretrained`` is a tag of open_clip ("openai"), whose weights open_clip downloads to
    ``cache_dir`` and whose activation is used whatever the name says; None gives random weights
    from ``seed``. Names may also be "hf-hub:owner/model" or "local-dir:folder", which bring their
    own config and weights. A file of weights is read by :func:`bvlib.worlds.bases.load`. Images are
    pixels (N, 3, S, S) in [0, 1] with S the card's "image_size".

    ``heads``: a folder in which zero-shot heads are kept.

    The card: name, pretrained, quick_gelu, image_size, mean, std, seed, open_clip's version, the
    model's config, and "image_sha256" and "sha256", :func:`bvlib.files.weights.digest` of the image
    tower and of both towers.

    Raises BvError for an unknown name or tag, for a file, and when the weights cannot be
    had.
    """
    config, quick = _config(name, pretrained)
    where = torch.device(device) if device is not None else default_device()
    # open_clip, huggingface_hub and the network raise errors of their own
    what = f"open_clip could not make {name!r} with weights {pretrained!r}"
    mend = "without a network, set HF_HUB_OFFLINE=1 and put what it downloads into cache_dir"
    ways = {"force_quick_gelu": quick, "weights_only": True, "pretrained_text": False}
    ways["require_pretrained"] = bool(pretrained) or name.startswith(PLACES)
    with torch.random.fork_rng(devices=[]), bases.quiet(), told_as(what, mend=mend):
        torch.manual_seed(derive(seed, "clip", name))
        model = open_clip.create_model(name, pretrained, cache_dir=cache_dir, **ways)
        tokenizer = open_clip.get_tokenizer(name, cache_dir=cache_dir)
    pixels = open_clip.model.get_model_preprocess_cfg(model)
    size = getattr(model.visual, "image_size", pixels.get("size"))
    # what is written down names no folder of this machine
    said = f"local-dir:{Path(name).name}" if name.startswith("local-dir:") else name
    card = {
        "name": said,
        "pretrained": pretrained,
        "quick_gelu": quick,
        "image_size": size if isinstance(size, int) else size[0],
        "mean": list(pixels["mean"]),
        "std": list(pixels["std"]),
        "seed": None if pretrained else seed,
        "open_clip": open_clip.__version__,
        "image_sha256": digest(model.visual.state_dict()),
        "sha256": digest(model.state_dict()),
        "model": {**config, "quick_gelu": quick},
    }
    check_activation(name, quick, model)
    kept, normal = heads and Path(heads), (card["mean"], card["std"])
    return KeptHeads(model.to(where), tokenizer, said, card, *normal, folder=kept)


def uses_quick_gelu(model: torch.nn.Module) -> bool:
    """Whether a model's blocks have QuickGELU rather than the exact GELU. Raises BvError when it
    mixes the two."""
    kinds = {type(module).__name__ for module in model.modules()} & {"QuickGELU", "GELU"}
    if len(kinds) == 2:
        raise BvError("the model mixes QuickGELU and GELU: build it again by its name")
    return kinds == {"QuickGELU"}


def check_activation(name: str, quick: bool, model: torch.nn.Module) -> None:
    """Raise a BvError when weights want one activation and the model's modules are of the other."""
    if (has := uses_quick_gelu(model)) != quick:
        kinds = {True: "QuickGELU", False: "GELU"}
        name = name.removesuffix("-quickgelu")
        way = f"{name}-quickgelu" if quick else name
        both = f"want {kinds[quick]} but the model has {kinds[has]}"
        mend = f"build it as {way!r}, or its features are wrong (open_clip issue 771)"
        raise BvError(f"the weights of {name} {both}: {mend}")


def saved_entries(model: torch.nn.Module) -> int:
    """Entries of the checkpoint that the papers' code saves and trims: the image tower and, of the
    text tower, embeddings and projection but no blocks."""
    blocks = ("transformer.", "text.transformer.", "attn_mask", "text.attn_mask")
    whole = model.state_dict().items()
    return sum(tensor.numel() for name, tensor in whole if not name.startswith(blocks))


def _config(name: str, pretrained: str | None) -> tuple[dict, bool]:
    """(model config, QuickGELU or not) of a name and a tag. BvError for an unknown name or tag, or
    a file."""
    if name.startswith(PLACES):
        if pretrained is not None:
            raise BvError(f"{name!r} brings its own weights: leave out pretrained={pretrained!r}")
        with told_as(f"no model config at {name!r}", mend="name a folder or repository with one"):
            config = open_clip.get_model_config(name)
            return config, bool(config.get("quick_gelu", False))
    config = open_clip.get_model_config(name)
    if config is None:
        near = difflib.get_close_matches(name, open_clip.list_models(), 5, 0.0)
        raise unknown("open_clip model", name, near)
    quick = bool(config.get("quick_gelu", False))
    if pretrained is None:
        return config, quick
    if not open_clip.is_pretrained_cfg(name, pretrained):
        if Path(pretrained).suffix in (".pt", ".pth", ".bin", ".safetensors"):
            what = f"{pretrained} does not say which activation it wants, so build takes tags only"
            mend = "read a saved encoder with bvlib.load_base, a fine-tuned image tower with "
            raise BvError(f"{what}: {mend}bvmake.imports")
        tags = open_clip.list_pretrained_tags_by_model(name)
        raise unknown(f"weights of {name!r},", pretrained, tags)
    tag = open_clip.get_pretrained_cfg(name, pretrained)
    return config, quick or bool(tag.get("quick_gelu", False))
