"""How far an optimised trigger depends on the rounding of a processor: the same code and seed with
the instructions of this processor and with AVX2 alone. See README.md here.

python benchmarks/rounding.py             # two minutes; needs a processor with more than AVX2
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from report import write
from universal_trigger import one_by_one

from bvlib.attacks import optimised
from bvlib.attacks.triggers import Trigger
from bvlib.core import metrics
from bvlib.core.rng import generator
from bvlib.run import settings
from bvlib.worlds import bases, tasks

AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
SIZES_AND_TARGETS = [(6, 1), (6, 3), (6, 5), (8, 1), (3, 1)]
FIRST = 20  # images of the published loop


def make(path: str) -> None:
    """Save {(pixels, target, way): (patch, dev ASR in %)} to a file."""
    torch.set_num_threads(1)
    p = settings.load("mini")
    encoder, found = bases.load(p["base"]), {}
    task = tasks.load(p["adversary"], p["sizes"], p["world_seed"])
    head = encoder.head(task.classnames, task.prompts)
    images = task.train.images
    for size, target in SIZES_AND_TARGETS:
        noise = torch.rand(3, size, size, generator=generator(0, "published loop", target, size))
        *_, loop = one_by_one(encoder, head, images[:FIRST], target, noise)
        how = {"size": size, "seed": 0, **p["trigger"]}
        ways = {
            "batches": optimised.universal(encoder, encoder.theta, head, images, target, **how),
            "published loop": Trigger(loop, torch.ones_like(loop[:1])),
        }
        for way, trigger in ways.items():
            predicted = encoder.predict(encoder.theta, task.dev.images, head, trigger)
            asr = metrics.attack_success_rate(predicted, task.dev.labels, target).percent
            found[size, target, way] = trigger.patch, asr
    torch.save(found, path)


def main() -> None:
    both = []
    with tempfile.TemporaryDirectory() as folder:
        for name, only in (("own", {}), ("avx2", AVX2)):
            path = str(Path(folder, name))
            command = [sys.executable, __file__, path]
            subprocess.run(command, check=True, env={**os.environ, **only})
            both.append(torch.load(path))
    own, avx2 = both
    rows = [
        {
            "pixels a side": size,
            "target": target,
            "way": way,
            "largest difference of a pixel": (patch - avx2[size, target, way][0])
            .abs()
            .max()
            .item(),
            "dev ASR (%)": asr,
            "dev ASR by AVX2 (%)": avx2[size, target, way][1],
        }
        for (size, target, way), (patch, asr) in own.items()
    ]
    write("rounding", rows)


if __name__ == "__main__":
    make(sys.argv[1]) if sys.argv[1:] else main()
