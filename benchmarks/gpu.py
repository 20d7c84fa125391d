"""What a GPU does with the trainings and merges of the profile `paper`: random weights, images of
noise. See README.md here.

python benchmarks/gpu.py      # a few minutes and 3 GB of files in --folder; needs a GPU
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import torch
from backdoored_step import Fresh
from merging import TASKS, prepare
from report import one_more, write

from bvlib.attacks import objectives, optimised, triggers
from bvlib.core import training
from bvlib.core.device import peak_memory
from bvlib.core.errors import BvError
from bvlib.core.rng import generator
from bvlib.merging.streaming import merge_files
from bvlib.run import settings
from bvlib.worlds import clip

MODELS = {"ViT-B-32": (None, 64), "ViT-L-14": (64,)}  # values of train.chunk that are tried
ROUNDS, SECONDS = 3, 4.0  # merges of each kind; what each row of steps may take, about
IMAGES = 400  # evaluated


def steps(name: str, chunks) -> Iterator[dict]:
    """Training steps, evaluation and a trigger's step on one encoder with random weights, by
    precision and chunk."""
    p, encoder = settings.load("paper"), clip.build(name, None)
    base, side, batch = encoder.theta, encoder.card["image_size"], p["train"]["batch"]
    noise = torch.randint(
        256, (batch, side, side, 3), dtype=torch.uint8, generator=generator(0, "noise")
    )
    labels, trigger = torch.arange(batch) % 10, triggers.solid(p["trigger_size"])
    with torch.no_grad():  # a head of ten classes, as good as any
        head = torch.nn.functional.normalize(
            encoder.features(base, encoder.pixels(noise[:10])), dim=-1
        )
    kinds = {
        "clean": training.clean,
        "interpolated, frozen features new": lambda: objectives.feature_interpolation(
            Fresh(trigger), 1
        ),
        "interpolated, frozen features kept": lambda: objectives.feature_interpolation(trigger, 1),
    }

    def row(what, precision, chunk, run, images):
        torch.cuda.reset_peak_memory_stats()
        try:
            seconds, peak = one_more(run, SECONDS), peak_memory() / 1e9
        except torch.OutOfMemoryError:
            seconds, peak = float("nan"), float("nan")  # does not fit
            torch.cuda.empty_cache()
        return {
            "model": name,
            "what": what,
            "precision": precision,
            "chunk": chunk or "none",
            "ms": 1000 * seconds,
            "images/s": images / seconds,
            "peak (GB)": peak,
        }

    for precision in ("fp32", "bf16"):
        for chunk in chunks:
            for what, objective in kinds.items():
                how = {**p["train"], "precision": precision, "chunk": chunk}
                yield row(
                    f"step, {what}",
                    precision,
                    chunk,
                    lambda n, how=how, objective=objective: training.finetune(
                        encoder, base, head, noise, labels, objective(), **{**how, "steps": n}
                    ),
                    batch,
                )
        seen, many = encoder.fitted(precision), noise.repeat(-(-IMAGES // batch), 1, 1, 1)[:IMAGES]
        yield row(
            "evaluation",
            precision,
            None,
            lambda n, seen=seen, many=many: [seen.predict(base, many, head) for _ in range(n)],
            IMAGES,
        )
    yield row(
        "trigger step",
        "fp32",
        None,
        lambda n: optimised.universal(
            encoder, base, head, noise, 1, size=p["trigger_size"], **{**p["trigger"], "steps": n}
        ),
        p["trigger"]["batch"],
    )


def merges(folder: Path) -> Iterator[dict]:
    """Six towers of ViT-B-32's size merged from file to file on CPU and GPU in turn, after the
    files were read once."""
    paths, rows = prepare(folder, "B-32", TASKS), {}
    for number in range(ROUNDS + 1):  # the first is a warm-up
        for method in ("task_arithmetic", "ties"):
            for device in ("cpu", "cuda"):
                torch.cuda.reset_peak_memory_stats()
                begin = time.perf_counter()
                merge_files(
                    method,
                    paths[0],
                    paths[1:],
                    paths[0].with_name(f"out {device}.safetensors"),
                    device=device,
                    check=False,
                )
                if number:
                    rows.setdefault((method, device), []).append(
                        (time.perf_counter() - begin, peak_memory())
                    )
    yield from (
        {
            "model": f"{TASKS} of ViT-B-32",
            "what": f"{method} from file to file, on {device}",
            "precision": "fp32",
            "chunk": "none",
            "ms": 1000 * statistics.median(seconds for seconds, _ in found),
            "peak (GB)": max(peak for _, peak in found) / 1e9 if device == "cuda" else float("nan"),
        }
        for (method, device), found in rows.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("/tmp/bvlib-merging"),
        help="where files to merge are made, or lie already",
    )
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise BvError("no GPU is seen here: torch.cuda.is_available() is false")
    rows = []
    try:
        for row in chain.from_iterable(
            [*(steps(name, chunks) for name, chunks in MODELS.items()), merges(args.folder)]
        ):
            print(row, flush=True)
            rows.append(row)
    finally:
        write("gpu", rows)


if __name__ == "__main__":
    main()
