"""The speed of this device at each unit of a run's work, in about a minute; see
:mod:`bvlib.run.plan`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from bvlib.attacks import objectives, triggers
from bvlib.core import training
from bvlib.core.encoder import BATCH, Encoder, peak_memory
from bvlib.core.errors import BvError, unknown
from bvlib.core.vectors import TaskVector
from bvlib.defences.occlusion import Occluded
from bvlib.merging import adaptive, datafree
from bvlib.worlds import bases, clip

AT_ONCE = 16  # classes that Neural Cleanse optimises side by side


@dataclass(frozen=True)
class Probe:
    """What a device was measured to do: seconds of each unit of work (``speeds``).

    ``theta``: bytes of an image tower, ``parameters`` of both towers, ``image_size`` in pixels,
    ``peak`` memory in bytes, also that of Neural Cleanse by its larger batch (``cleanse``),
    ``scaled`` {unit: images timed, images wanted} where they differ.
    """

    device: str
    speeds: Mapping[str, float]
    theta: int
    parameters: int
    image_size: int
    peak: int
    cleanse: int = 0
    scaled: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def probe(p: Mapping[str, Any], units: Collection[str], within: float = 60.0) -> Probe:
    """Seconds of each of ``units`` on this device with the profile's encoder, in about ``within``
    seconds; peak memory.

    Images are noise, a real CLIP's weights random. Where a whole batch would take too long a
    smaller one is timed and scaled linearly (``scaled``): somewhat too much, as the optimizer's
    part does not grow. A slow device takes longer than it was given, as each unit runs four times
    at least. Raises BvError when there is no time or memory for it, or for an unknown base or unit.
    """
    if not within > 0:
        raise BvError(f"--probe wants seconds above 0, got {within}")
    try:
        return _probe(p, set(units), within)
    except torch.OutOfMemoryError:
        chunk = p["train"].get("chunk")
        raise BvError(
            f"{p['base']} does not fit this device's memory: lower train.chunk (now {chunk})"
        ) from None


def one_more(run: Callable[[int], Any], within: float) -> float:
    """Seconds of one repetition more of the n that ``run(n)`` makes, beyond what the first takes,
    after a warm-up.

    Of as many repetitions as there is time for ``within`` so many seconds; four are made at least.
    """

    def took(n: int) -> float:
        began = time.perf_counter()
        run(n)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began

    took(1)
    first = took(1)
    more = max(took(2) - first, 1e-4)
    n = int((within - 5 * first - more) / more)
    return max(took(1 + n) - first, 1e-9) / n if n > 1 else more


def _probe(p: Mapping[str, Any], units: Collection[str], within: float) -> Probe:
    real = "pretrained" in p and not p["base"].endswith(".safetensors")
    encoder = clip.build(p["base"], None) if real else bases.load(p["base"])
    base, train, trigger, gpu = (
        encoder.theta,
        p["train"],
        p["trigger"],
        encoder.device.type == "cuda",
    )
    side = encoder.model.visual.image_size
    side = side if isinstance(side, int) else side[0]
    noise = torch.randint(
        256,
        (BATCH, side, side, 3),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )
    with torch.no_grad():  # a head of ten classes, as good as any
        head = torch.nn.functional.normalize(
            encoder.features(base, encoder.pixels(noise[:10])), dim=-1
        )
    one = TaskVector({k: 1e-3 * v for k, v in base.items() if v.is_floating_point()})
    vectors, white, each = (
        {name: one for name in p["tasks"]},
        triggers.solid(p["trigger_size"]),
        within / (len(units) + 1),
    )

    def chunk(batch: int) -> int | None:  # as many chunks as the whole batch has
        return (
            None
            if train.get("chunk") is None
            else max(1, round(train["chunk"] * batch / train["batch"]))
        )

    def tuned(objective, n: int, batch: int) -> None:
        how = {**train, "steps": n, "batch": batch, "chunk": chunk(batch)}
        training.finetune(
            encoder, base, head, noise[:batch], torch.arange(batch) % 10, objective, **how
        )

    def adapted(n: int, batch: int) -> None:
        seen = {name: adaptive.Seen(noise[:batch], head, "dev") for name in vectors}
        adaptive.adamerging(vectors, encoder=encoder, base=base, seen=seen, steps=n, batch=batch)

    runs = {  # n repetitions of each with so many images
        "merge": lambda n, _: [
            base + datafree.merge("task_arithmetic", [*vectors.values()], coefficient=0.3)
            for _ in range(n)
        ],
        "image": lambda n, batch: [encoder.predict(base, noise[:batch], head) for _ in range(n)],
        "gram image": lambda n, batch: [
            adaptive.grams(encoder, base, noise[:batch]) for _ in range(n)
        ],
        "trigger step": lambda n, batch: triggers.toward_class(
            encoder,
            base,
            head,
            noise,
            1,
            size=p["trigger_size"],
            **{**trigger, "steps": n, "batch": batch},
        ),
        "clean step": lambda n, batch: tuned(training.clean(), n, batch),
        "backdoored step": lambda n, batch: tuned(
            objectives.feature_interpolation(white, 1), n, batch
        ),
        "adaptive step": adapted,
    }
    if strange := units - runs.keys() - {"occluded image"}:
        raise unknown("unit of work", sorted(strange)[0], [*runs, "occluded image"])

    def repeated(unit: str, batch: int, within: float) -> float:
        return one_more(lambda n: runs[unit](n, batch), within)

    # images of a step that can be repeated: known better with more of them, as small batches are
    # dear
    most = 4
    for _ in range(4):
        before, most = (
            most,
            max(4, min(train["batch"], int(each / 6 / (repeated("clean step", most, 0) / most)))),
        )
        if most <= 1.5 * before:
            break
    own = p["adaptive"]["adamerging"].get("batch", 16)
    wanted = {
        "trigger step": trigger["batch"],
        "clean step": train["batch"],
        "backdoored step": train["batch"],
        "adaptive step": own,
    }
    few = {
        "trigger step": most,
        "clean step": most,
        "backdoored step": most,
        "adaptive step": max(2, most // len(vectors)),
    }
    few = {unit: min(few[unit], wanted[unit]) for unit in wanted}
    speeds, most = {}, min(BATCH, 3 * most)
    for unit in runs:
        if unit not in units and not (unit == "image" and "occluded image" in units):
            continue
        if unit not in wanted:
            speeds[unit] = repeated(unit, most, each) / (1 if unit == "merge" else most)
        else:
            speeds[unit] = repeated(unit, few[unit], each) * wanted[unit] / few[unit]
    if "occluded image" in units:
        speeds["occluded image"] = speeds["image"] * 2 * (side // Occluded(encoder).patch) ** 2

    def saved(sight: Encoder, learns: bool, images: int) -> int:
        """Bytes that a forward pass keeps for its backward pass, of so many images (0 for a
        negative number)."""
        found = []
        theta = {
            k: v.detach().clone().requires_grad_(learns and v.is_floating_point())
            for k, v in base.items()
        }
        for n in (1, 2):
            kept: dict[int, int] = {}
            with torch.autograd.graph.saved_tensors_hooks(
                lambda t: (
                    kept.update({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()}),
                    t,
                )[1],
                lambda t: t,
            ):
                held = sight.features(theta, sight.pixels(noise[:n]).requires_grad_(True))  # noqa: F841 (keeps them apart)
            found.append(sum(kept.values()))
        return max(0, images) * (found[1] - found[0])

    peak, timed = peak_memory(), 1.5 if "backdoored step" in units else 1.0
    whole, done = (
        min(timed * batch, chunk(batch) or timed * batch)
        for batch in (train["batch"], few["clean step"])
    )
    learnt = saved(encoder.fitted(train.get("precision", "fp32")), True, round(whole - done))
    patched = (
        saved(encoder, False, trigger["batch"] - few["trigger step"])
        if "trigger step" in units
        else 0
    )
    cleanse = saved(encoder, False, AT_ONCE * p["neural_cleanse"]["batch"] - few["trigger step"])
    device = torch.cuda.get_device_name(0) if gpu else f"CPU, {torch.get_num_threads()} thread(s)"
    theta = sum(v.numel() * v.element_size() for v in base.values())
    return Probe(
        device,
        speeds,
        theta,
        sum(v.numel() for v in encoder.model.parameters()),
        side,
        peak + max(learnt, patched),
        peak + cleanse,
        {unit: (few[unit], n) for unit, n in wanted.items() if unit in units and few[unit] < n},
    )
