"""An image tower that computes no more than its features need."""

import copy
from typing import Any


def pooled(tower: Any) -> Any:
    """An image tower whose last block computes the class token alone, where the features are that
    token's: with four blocks a quarter faster, the same but for rounding.

    A copy without weights, for ``functional_call``; the tower itself if it pools otherwise.
    """
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    class Last(ResidualAttentionBlock):
        def forward(self, q_x, k_x=None, v_x=None, attn_mask=None):
            normal, first = self.ln_1(q_x), q_x[:, :1]
            seen = self.attn(normal[:, :1], normal, normal, need_weights=False)[0]
            first = first + self.ls_1(seen)
            return first + self.ls_2(self.mlp(self.ln_2(first)))

    if type(tower) is not VisionTransformer:
        return tower
    plain = tower.pool_type == "tok" and tower.attn_pool is None and not tower.output_tokens
    blocks = tower.transformer.resblocks
    if not (plain and tower.transformer.batch_first and type(blocks[-1]) is ResidualAttentionBlock):
        return tower
    copied = copy.deepcopy(tower).to("meta")
    copied.transformer.resblocks[-1].__class__ = Last
    return copied
