"""Encoders: open_clip models seen as a pure function of their image-tower weights.

A model is split into what merging moves, theta (the state dict of the image tower), and what
stays: the text tower that builds zero-shot heads, the normalisation of pixels, the logit scale. So
every model of the study is one
:class:`Encoder` plus a dict of tensors.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

import torch
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from . import _torchvision  # noqa: F401  (must come before open_clip)
from .checkpoints import check_matches, load_weights
from .errors import BvError, unknown

import open_clip  # noqa: E402

StateDict = dict[str, torch.Tensor]
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
WEIGHTS = Path(__file__).parent / "weights"
VOCABULARY = WEIGHTS / "bpe_2048.txt.gz"

# Both shipped bases share this shape: open_clip's own ViT, 4 x 4 tokens of 8 pixels, and a small
# text tower over
# the first 1,534 merges of open_clip's vocabulary (2,048 tokens in all).
TINY = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": 4, "width": 128, "head_width": 32},
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 2048,
        "width": 128,
        "heads": 4,
        "layers": 2,
        "tokenizer_kwargs": {"bpe_path": "bpe_2048.txt.gz"},
    },
}
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
EVALUATED = {"images": 0}  # by `predict` in this process, for a run's record and for `bv plan`
# images a pass without gradients: on two cores and 32 px a third faster than 500, whose activations
# leave the cache
BATCH = 200


def device() -> torch.device:
    """The device everything runs on: a GPU when there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def peak_memory() -> int:
    """The most memory (bytes) that this process has held so far: the GPU's when there is one, else
    the main memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def build(config: dict, name: str = "bvlib-tiny") -> tuple[torch.nn.Module, object]:
    """A fresh open_clip model and its tokenizer from a model config, through open_clip's
    factory."""
    config = json.loads(json.dumps(config))
    kwargs = config.get("text_cfg", {}).get("tokenizer_kwargs", {})
    if "bpe_path" in kwargs:
        kwargs["bpe_path"] = str(WEIGHTS / kwargs["bpe_path"])
    open_clip.factory._MODEL_CONFIGS[name] = config
    said = logging.getLogger().level
    logging.getLogger().setLevel(
        logging.ERROR
    )  # open_clip warns that no weights are loaded: they come later
    try:
        return open_clip.create_model(name), open_clip.get_tokenizer(name)
    finally:
        logging.getLogger().setLevel(said)


def text_features(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Unit text features (N, D) of tokens (N, L), without the passes over padding that
    ``encode_text`` makes.

    Attention in the text tower looks back only, so positions after the longest text change nothing.
    """
    tokens = tokens[:, : int((tokens != 0).sum(1).max())]
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    x = (
        x[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection
    )  # the end token has the largest id
    return torch.nn.functional.normalize(x, dim=-1)


@dataclass
class Encoder:
    """An open_clip model whose image-tower weights are an argument.

    ``theta`` are the base's own image-tower weights (the pre-trained model); ``card`` says where
    they come from.
    """

    model: torch.nn.Module
    tokenizer: object
    name: str = ""
    card: dict = field(default_factory=dict)
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    precision: str = "fp32"
    chunk: int | None = None

    def __post_init__(self):
        self.model.eval().requires_grad_(False)
        where = next(self.model.parameters()).device
        self._mean = torch.tensor(self.mean, device=where).view(1, 3, 1, 1)
        self._std = torch.tensor(self.std, device=where).view(1, 3, 1, 1)
        self._heads: dict = {}

    @property
    def device(self) -> torch.device:
        """Where the model and what it computes live."""
        return self._mean.device

    def fitted(self, precision: str = "fp32", chunk: int | None = None) -> "Encoder":
        """The same encoder for a machine that it would not fit: features in "bf16" autocast
        (weights, features and loss stay fp32),
        and of ``chunk`` images at a time, whose activations are computed again in the backward
        pass instead of kept.

        The batch, and so the loss, stays whole: memory is that of a chunk, for one more forward
        pass. Raises BvError for an unknown precision or a chunk below 1.
        """
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        if chunk is not None and chunk < 1:
            raise BvError(
                f"chunk {chunk} holds no image: give 1 or more, or none to take the batch whole"
            )
        other = copy.copy(self)
        other.precision, other.chunk = precision, chunk
        return other

    @property
    def theta(self) -> StateDict:
        """The base's image-tower weights (copied)."""
        return {k: v.clone() for k, v in self.model.visual.state_dict().items()}

    @property
    def scale(self) -> float:
        """The temperature that multiplies cosine similarities."""
        return float(self.model.logit_scale.exp())

    def pixels(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, H, W, 3) uint8 or (N, 3, H, W) float to float pixels (N, 3, H, W) in [0,
        1]."""
        if images.dtype == torch.uint8:
            images = images.to(self._mean.device).permute(0, 3, 1, 2).float() / 255
        return images

    def features(self, theta: StateDict, pixels: torch.Tensor) -> torch.Tensor:
        """Image features (N, D), not normalised, of pixels (N, 3, H, W) in [0, 1] under weights
        theta."""

        def seen(part):
            with torch.autocast(
                part.device.type, PRECISIONS["bf16"], enabled=self.precision == "bf16"
            ):
                return functional_call(
                    self.model.visual, theta, ((part - self._mean) / self._std,)
                ).float()

        if self.chunk is None or len(pixels) <= self.chunk or not torch.is_grad_enabled():
            return seen(pixels)
        parts = [
            checkpoint(seen, part, use_reentrant=False, preserve_rng_state=False)
            for part in pixels.split(self.chunk)
        ]
        return torch.cat(parts)

    def logits(self, features: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        """Scaled cosine logits (N, K) of features (N, D) against a head (K, D)."""
        return self.scale * torch.nn.functional.normalize(features, dim=-1) @ head.T

    @torch.no_grad()
    def head(self, classnames: Sequence[str], prompts: Sequence[str]) -> torch.Tensor:
        """Zero-shot head (K, D): text features averaged over the prompts, each of length one.

        Raises BvError when there is no class or no prompt with a ``{}``.
        """
        if not classnames or not prompts or any("{}" not in p for p in prompts):
            raise BvError(
                f"a head needs class names and prompts with {{}}: got {len(classnames)} names, "
                f"{list(prompts)}"
            )
        key = (tuple(classnames), tuple(prompts))
        if key not in self._heads:
            texts = [p.format(c) for c in classnames for p in prompts]
            tokens = self.tokenizer(texts).to(self._mean.device)
            f = torch.cat([self.model.encode_text(t, normalize=True) for t in tokens.split(256)])
            f = f.view(len(classnames), len(prompts), -1).mean(1)
            self._heads[key] = torch.nn.functional.normalize(f, dim=-1)
        return self._heads[key]

    @torch.no_grad()
    def predict(
        self,
        theta: StateDict,
        images: torch.Tensor,
        head: torch.Tensor,
        trigger=None,
        batch: int = BATCH,
    ) -> torch.Tensor:
        """Predicted classes (N,) int64 on the CPU; ``trigger`` is pasted in pixel space first when
        given."""
        out = []
        EVALUATED["images"] += len(images)
        for part in images.split(batch) if len(images) else ():
            x = self.pixels(part)
            if trigger is not None:
                x = trigger.paste(x)
            out.append(self.logits(self.features(theta, x), head).argmax(-1).cpu())
        return torch.cat(out) if out else torch.empty(0, dtype=torch.int64)


def shipped() -> list[str]:
    """Names of the bases that come with the package."""
    return sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))


def load(name: str) -> Encoder:
    """A base by name, or by the path of its .safetensors file (a card of the same stem beside it).

    Raises BvError for an unknown name, a missing card, or weights that do not fit the card's model.
    """
    path = Path(name) if name.endswith(".safetensors") else WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        raise unknown("base", name, shipped())
    weights, card = load_weights(path)
    if "model" not in card:
        raise BvError(
            f"{path.name} has no card with a model config: put {path.stem}.json beside it"
        )
    model, tokenizer = build(card["model"], f"bvlib-{path.stem}")
    check_matches(weights, model.state_dict(), path.name)
    model.load_state_dict(weights)
    return Encoder(
        model.to(device()), tokenizer, path.stem, card, card.get("mean", MEAN), card.get("std", STD)
    )
