"""An image tower that computes no more than its features need."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

# x, weight, bias -> x @ weight.T + bias
Linear = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def lean(tower: Any, linear: Linear = F.linear) -> Any:
    """An image tower whose blocks copy less, and whose last one computes the class token alone,
    where the features are that token's: with four blocks a third faster, the same but for rounding.

    A copy without weights, for ``functional_call``; the tower itself if it is built otherwise.
    ``linear`` multiplies in its blocks: :func:`onednn` where no gradient is asked for.
    """
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
    from torch.nn import MultiheadAttention

    class Block(ResidualAttentionBlock):
        asked: int | None = None  # tokens that the next step needs, from the first on

        def forward(self, q_x, k_x=None, v_x=None, attn_mask=None):
            seen = attended(self.attn, self.ln_1(q_x), self.asked, linear)
            x = q_x[:, : self.asked] + self.ls_1(seen)
            mlp: Any = self.mlp
            hidden = mlp.gelu(linear(self.ln_2(x), mlp.c_fc.weight, mlp.c_fc.bias))
            return x + self.ls_2(linear(hidden, mlp.c_proj.weight, mlp.c_proj.bias))

    class Last(Block):
        asked = 1

    if type(tower) is not VisionTransformer:
        return tower
    plain = tower.pool_type == "tok" and tower.attn_pool is None and not tower.output_tokens
    usual = all(
        type(block) is ResidualAttentionBlock and type(block.attn) is MultiheadAttention
        for block in tower.transformer.resblocks
    )
    if not (plain and usual and tower.transformer.batch_first):
        return tower
    copied = copy.deepcopy(tower).to("meta")
    for block in copied.transformer.resblocks:
        block.__class__ = Block
    copied.transformer.resblocks[-1].__class__ = Last
    return copied


def onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """F.linear by oneDNN, without a gradient: on a CPU, in fp32, for the small matrices of 32 px a
    tenth faster than what torch takes by itself; the same but for rounding.

    torch has no public switch for it, so what its compiler calls is called; F.linear elsewhere.
    """
    by_hand = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if _ONEDNN is None or not by_hand or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    return _ONEDNN(x, weight, bias, "none", [], "")


_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def attended(
    attention: Any, x: torch.Tensor, asked: int | None = None, linear: Linear = F.linear
) -> torch.Tensor:
    """What ``attention``, a torch.nn.MultiheadAttention, gives its first ``asked`` tokens (all by
    default) of tokens x (N, L, D) that look at all of them: (N, asked, D)."""

    def heads(y):
        return y.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    weight, bias, width = attention.in_proj_weight, attention.in_proj_bias, attention.embed_dim
    if asked is None:
        q, k, v = linear(x, weight, bias).chunk(3, -1)
    else:
        q = linear(x[:, :asked], weight[:width], bias[:width])
        k, v = linear(x, weight[width:], bias[width:]).chunk(2, -1)
    seen = F.scaled_dot_product_attention(heads(q), heads(k), heads(v))
    out = attention.out_proj
    return linear(seen.transpose(1, 2).flatten(2), out.weight, out.bias)
