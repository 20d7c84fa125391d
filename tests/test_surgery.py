"""Surgery: an adapter that starts as nothing, closes the gap it trains on, and serves where an
encoder does."""

import torch
from helpers import TINY_NAMES, one_line
from torch.nn import functional as F

from bvlib.attacks import triggers
from bvlib.core.encoder import Model
from bvlib.merging.datafree import task_arithmetic
from bvlib.merging.registry import features
from bvlib.merging.surgery import Adapter, surgery
from bvlib.study import experiments


def feature_gap(encoder, merged, own, images, adapter):
    """What Surgery minimises: mean |ẑ − z_own|; without an adapter, of z."""
    z = features(encoder, merged, images)
    return float(F.l1_loss(adapter(z) if adapter else z, features(encoder, own, images)))


def test_surgery_starts_as_the_identity_and_closes_the_gap_it_trains_on(tiny):
    encoder, seen = tiny["encoder"], tiny["seen"]
    own = {name: tiny["base"] + vector for name, vector in tiny["vectors"].items()}
    merged = tiny["base"] + task_arithmetic(list(tiny["vectors"].values()), coefficient=0.3)
    x = encoder.pixels(seen["left"].images[:4])
    untrained = surgery(encoder, merged, seen, own, steps=0)
    assert torch.equal(
        untrained["left"].over(encoder).features(merged, x), encoder.features(merged, x)
    )
    trained = surgery(encoder, merged, seen, own, steps=100, lr=1e-2, rank=8)
    for name in TINY_NAMES:
        assert trained[name].down.shape == (8, 128) and trained[name].up.shape == (128, 8)
        before, after = (
            feature_gap(encoder, merged, own[name], seen[name].images, a)
            for a in (None, trained[name])
        )
        assert after < 0.9 * before
    again = surgery(encoder, merged, seen, {"left": own["left"]}, steps=100, lr=1e-2, rank=8)[
        "left"
    ]
    assert torch.equal(again.up, trained["left"].up)  # whatever other tasks there are


def test_the_published_number_of_steps(tiny, monkeypatch):
    """500 rounds that each step after two batches of 16: 1000 steps."""
    sizes, step = [], torch.optim.Adam.step
    with monkeypatch.context() as patch:
        patch.setattr(F, "l1_loss", lambda z, goal: sizes.append(len(z)) or (z - goal).abs().mean())
        patch.setattr(torch.optim.Adam, "step", lambda self: sizes.append("step") or step(self))
        own = {"left": tiny["base"] + tiny["vectors"]["left"]}
        surgery(tiny["encoder"], tiny["base"], tiny["seen"], own)
    assert sizes == [16, "step"] * 2 * 500


def test_an_adapter_by_hand():
    adapter = Adapter(torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0], [3.0]]))
    assert adapter(torch.tensor([[3.0, 1.0], [1.0, 3.0]])).tolist() == [[-1, -5], [1, 3]]


def test_an_adapted_encoder_serves_as_an_encoder(encoder, shapes, head):
    flat = Adapter(
        torch.cat([torch.eye(128), -torch.eye(128)]),
        torch.cat([torch.eye(128), -torch.eye(128)], 1),
    )
    nothing = flat.over(encoder)  # z - ReLU(z) + ReLU(-z) = 0: every image is of class 0
    assert experiments.accuracy(Model(nothing, encoder.theta), shapes).hits == int(
        (shapes.test.labels == 0).sum()
    )
    same = Adapter(torch.zeros(1, 128), torch.zeros(128, 1)).over(encoder)
    assert experiments.accuracy(Model(same, encoder.theta), shapes) == experiments.accuracy(
        Model(encoder, encoder.theta), shapes
    )
    asr = [
        experiments.asr(Model(e, encoder.theta), shapes, triggers.solid(8), 3)
        for e in (same, encoder)
    ]
    assert asr[0] == asr[1] and torch.equal(same.head(shapes.classnames, shapes.prompts), head)


def test_a_task_without_an_adapter_is_told_in_one_line(encoder, shapes):
    model = Model({"digits": encoder}, encoder.theta)
    with one_line("no adapter for task 'shapes'", "merge that task as well"):
        model.predict(shapes)
