"""SBV rules by hand: TIES over backdoor vectors, what a rule may leave to the registry, norms."""

import torch
from helpers import one_line

from bvlib.attacks.sbv import at_norm, merge_backdoors, sbv_rule
from bvlib.core.vectors import BackdoorVector


def bv(*values):
    return BackdoorVector({"w": torch.tensor(values)})


def test_ties_by_hand():
    # top half of each: (4, 3), (-5, 3) and (4, 2); the sign of entry 0 is elected by mass: 4 - 5 +
    # 4 > 0
    merged = merge_backdoors(
        "ties", [bv(4.0, 3, 1, 0), bv(-5.0, 3, 1, 0), bv(4.0, 0, 0.5, 2)], density=0.5
    )
    assert merged.tensors["w"].tolist() == [4, 3, 0, 0] and isinstance(merged, BackdoorVector)


def test_of_one_and_of_identical_vectors_it_is_that_vector_sparsified():
    one = bv(4.0, -3, 1, 0.5)
    for several in ([one], [one] * 3):
        assert torch.equal(merge_backdoors("ties", several).tensors["w"], one.tensors["w"])
        assert torch.equal(
            merge_backdoors("ties", several, density=0.5).tensors["w"],
            one.sparsify(0.5).tensors["w"],
        )


def test_it_is_registered_with_the_others():
    assert {"mean", "sum", "ties", "sign_consistent"} <= set(sbv_rule)
    with one_line("density is a share between 0 and 1"):
        merge_backdoors("ties", [bv(1.0)], density=20)


def test_a_rule_without_a_density_of_its_own_is_sparsified_after():
    @sbv_rule("last")
    def last(vectors):
        return vectors[-1]

    try:
        merged = merge_backdoors("last", [bv(1.0, 2), bv(4.0, -3)], density=0.5)
        assert merged.tensors["w"].tolist() == [4, 0]
        with one_line("parameter of 'last' 'agreement'"):
            merge_backdoors("last", [bv(1.0)], agreement=1.0)
    finally:
        sbv_rule.without("last")


def test_at_a_norm_only_the_length_changes():
    assert at_norm(bv(3.0, 4), 10).tensors["w"].tolist() == [6, 8]
    with one_line("agree nowhere"):
        at_norm(bv(0.0, 0), 10)
