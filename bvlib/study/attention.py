"""What the model looks at: the class token's attention to the patches in the last block of an
open_clip ViT."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bvlib.core.errors import BvError
from bvlib.core.vectors import StateDict
from bvlib.study.experiments import matrix


@torch.no_grad()
def class_attention(encoder, theta: StateDict, images: Tensor, trigger=None) -> Tensor:
    """Attention (N, rows, columns) of the class token to each patch of the image, mean over the
    heads of the last block.

    ``images`` (N, H, W, 3) uint8; ``trigger`` is pasted first when given. A row's entries and the
    class token's attention to itself, which is left out, sum to 1. Raises BvError for an encoder
    that is no ViT with stacked attention weights.
    """
    visual, seen = encoder.model.visual, []
    layers = [m for m in visual.modules() if isinstance(m, nn.MultiheadAttention)]
    layers = [m for m in layers if m.in_proj_weight is not None]
    if not layers or not hasattr(visual, "conv1"):
        only = "class attention is read from an open_clip ViT only"
        raise BvError(f"{only}: this encoder has no such layers")

    def look(module, args):
        x = args[0] if module.batch_first else args[0].transpose(0, 1)
        q, k, _ = F.linear(x, module.in_proj_weight, module.in_proj_bias).chunk(3, -1)
        heads = (module.num_heads, -1)
        q, k = (part.unflatten(-1, heads).transpose(1, 2) for part in (q[:, :1], k))
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        seen.append(weights.mean(1)[:, 0, 1:])

    pixels = encoder.pixels(images)
    hook = layers[-1].register_forward_pre_hook(look)
    try:
        encoder.features(theta, pixels if trigger is None else trigger.paste(pixels), visual)
    finally:
        hook.remove()
    side = visual.conv1.kernel_size
    return seen[0].unflatten(1, (pixels.shape[-2] // side[0], pixels.shape[-1] // side[1])).cpu()


def maps(
    encoder, thetas: Mapping[str, StateDict], triggers: Mapping[str, Any], images: Tensor
) -> pd.DataFrame:
    """:func:`class_attention` averaged over ``images`` (percent), for every trigger and model: one
    row a patch of the image, with its row and column."""
    rows = []
    for shown, trigger in triggers.items():
        for name, theta in thetas.items():
            drawn = class_attention(encoder, theta, images, trigger).mean(0)
            for i, line in enumerate(drawn.tolist()):
                rows += [(shown, name, i, j, 100 * v) for j, v in enumerate(line)]
    return pd.DataFrame(rows, columns=["input", "model", "row", "column", "attention (%)"])


def last_patch(table: pd.DataFrame) -> pd.DataFrame:
    """Of :func:`maps` the attention (percent) to the bottom-right patch: a row an input, a column a
    model."""
    ends = (table["row"] == table["row"].max()) & (table["column"] == table["column"].max())
    return matrix(table[ends], "input", "model", "attention (%)").reset_index()
