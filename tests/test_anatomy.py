"""Where a vector lives, how low-rank it is, and what the model looks at."""

import pytest
import torch
from helpers import one_line

from bvlib.attacks import triggers
from bvlib.core.vectors import TaskVector
from bvlib.study.anatomy import block_of, kind_of, shares, spectrum
from bvlib.study.attention import class_attention
from bvlib.worlds import bases


@pytest.fixture(scope="module")
def toy():
    return bases.load("small")


def test_every_tensor_of_the_image_tower_has_a_part_and_a_kind(toy):
    keys = list(toy.theta)
    assert {kind_of(key) for key in keys} >= {
        "attention in (q, k, v)",
        "attention out",
        "MLP in",
        "MLP out",
        "patches in",
    }
    assert "other" not in {kind_of(key) for key in keys}
    assert {block_of(key) for key in keys} == {
        "before",
        "after",
        *(f"block {i}" for i in range(len(toy.model.visual.transformer.resblocks))),
    }


def test_shares_sum_to_all_and_cosines_are_within_the_part():
    a = TaskVector(
        {
            "resblocks.0.mlp.c_fc.weight": torch.tensor([[3.0, 0.0]]),
            "proj": torch.tensor([[0.0, 4.0]]),
        }
    )
    b = TaskVector(
        {
            "resblocks.0.mlp.c_fc.weight": torch.tensor([[3.0, 3.0]]),
            "proj": torch.tensor([[0.0, -1.0]]),
        }
    )
    table = shares(a, b).set_index("part")
    assert table["share of squared norm (%)"].tolist() == pytest.approx([36, 64])
    assert table["cosine"].tolist() == pytest.approx([0.5**0.5, -1])
    assert shares(a, b, block_of)["part"].tolist() == ["block 0", "after"]


def test_a_matrix_of_rank_one_has_all_in_its_first_direction():
    one = TaskVector(
        {"w": torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 4)), "bias": torch.ones(3)}
    )
    assert spectrum(one, (1, 2)).tolist() == pytest.approx([1, 100, 100])
    full = TaskVector({"w": torch.eye(8)})
    assert spectrum(full, (1, 4)).tolist() == pytest.approx([8, 12.5, 50])
    with one_line("no matrix"):
        spectrum(TaskVector({"bias": torch.ones(3)}))


def test_class_attention_is_a_share_of_one_for_every_patch_and_sees_the_trigger(toy):
    images = torch.randint(
        0, 256, (5, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    plain = class_attention(toy, toy.theta, images)
    assert plain.shape == (5, 4, 4) and (plain >= 0).all() and (plain.sum((1, 2)) < 1).all()
    changed = class_attention(toy, toy.theta, images, triggers.solid(6)) - plain
    assert changed.abs().flatten(1).max(1).values.min() > 0
    # by hand for one image: softmax over the keys of the last block
    block = toy.model.visual.transformer.resblocks[-1].attn
    kept = []
    hook = block.register_forward_pre_hook(lambda m, args: kept.append(args[0]))
    toy.features(toy.theta, toy.pixels(images), toy.model.visual)
    hook.remove()
    _, weights = torch.nn.functional.multi_head_attention_forward(
        *(3 * [kept[0].transpose(0, 1) if block.batch_first else kept[0]]),
        block.embed_dim,
        block.num_heads,
        block.in_proj_weight,
        block.in_proj_bias,
        None,
        None,
        False,
        0.0,
        block.out_proj.weight,
        block.out_proj.bias,
        training=False,
    )
    torch.testing.assert_close(plain.flatten(1), weights[:, 0, 1:], atol=1e-5, rtol=1e-4)
