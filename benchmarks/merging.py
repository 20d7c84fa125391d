"""Time and memory of merging from file to file, beside the published flatten-everything way. See
README.md here.

    python benchmarks/merging.py --folder /tmp/merging            # six ViT-B-32 image towers: 3 GB
    of files, 20 GB of memory python benchmarks/merging.py --folder /tmp/merging --large    #
    twenty ViT-L-14 towers as well: 5 GB more of files python benchmarks/merging.py --folder
    /tmp/merging --size small --large    # does it work? half a minute

Every measurement is a process of its own, all in turn, after its files were read once; --write
keeps what came out.
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from report import processor
from safetensors.torch import load_file, save_file

from bvlib.core.rng import generator
from bvlib.files.safe import write_json
from bvlib.files.weights import card_of, save_weights
from bvlib.merging.streaming import merge_files
from bvlib.run.store import environment

SIZES = {
    "small": (256, 6, 32, 50, 128),
    "B-32": (768, 12, 32, 50, 512),
    "L-14": (1024, 24, 14, 257, 768),
}
TASKS, MANY, DENSITY, COEFFICIENT, CHUNK = 6, 20, 0.2, 0.3, 1 << 24


# The files


def shapes(
    width: int, layers: int, patch: int, tokens: int, out: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a CLIP image tower's weights, as open_clip has them."""
    table = {
        "class_embedding": (width,),
        "positional_embedding": (tokens, width),
        "proj": (width, out),
        "conv1.weight": (width, 3, patch, patch),
    }
    norms = ["ln_pre", "ln_post"]
    for block in (f"transformer.resblocks.{number}." for number in range(layers)):
        table |= {
            block + "attn.in_proj_weight": (3 * width, width),
            block + "attn.in_proj_bias": (3 * width,),
        }
        for name, rows, columns in (
            ("attn.out_proj", width, width),
            ("mlp.c_fc", 4 * width, width),
            ("mlp.c_proj", width, 4 * width),
        ):
            table |= {f"{block}{name}.weight": (rows, columns), f"{block}{name}.bias": (rows,)}
        norms += [block + "ln_1", block + "ln_2"]
    return table | {f"{norm}.{what}": (width,) for norm in norms for what in ("weight", "bias")}


def prepare(folder: Path, size: str, tasks: int, links: int = 0) -> list[Path]:
    """base and `tasks` fine-tuned files of random weights, with cards; `links` names in all, hard
    links beyond `tasks`."""
    folder, table = folder / size, shapes(*SIZES[size])
    paths = [folder / f"{name}.safetensors" for name in ("base", *range(tasks))]
    if not all(card_of(path).is_file() for path in paths):
        base = {
            key: 0.02 * torch.randn(shape, generator=generator(0, key))
            for key, shape in table.items()
        }
        save_weights(paths[0], base)
        for number, path in enumerate(paths[1:]):
            save_weights(
                path,
                {
                    key: value
                    + 1e-3 * torch.randn(value.shape, generator=generator(1, number, key))
                    for key, value in base.items()
                },
            )
    for number in range(tasks, links):
        paths.append(folder / f"link{number}.safetensors")
        for old, new in (
            (paths[1 + number % tasks], paths[-1]),
            (card_of(paths[1 + number % tasks]), card_of(paths[-1])),
        ):
            new.unlink(missing_ok=True)
            os.link(old, new)
    return paths


# The jobs: each gets [base, fine-tuned ...] and writes `out`


def floor(paths: list[Path], out: Path, hashed: bool = False) -> None:
    """Read every file through one buffer, write one of them; `hashed`: with the sha256 that
    load_weights and save_weights take."""
    buffer = memoryview(bytearray(CHUNK))
    for path in paths:
        digest = hashlib.sha256()
        with (
            open(path, "rb", buffering=0) as file,
            open(out if path == paths[0] else os.devnull, "wb", buffering=0) as target,
        ):
            while count := file.readinto(buffer):
                if path == paths[0]:
                    target.write(buffer[:count])
                if hashed:
                    digest.update(buffer[:count])
    if hashed:
        with open(out, "rb") as file:
            hashlib.file_digest(file, "sha256")


def flattened(paths: list[Path]) -> tuple[dict, torch.Tensor, torch.Tensor]:
    """theta_0, the same as one vector [D], and all task vectors [T, D]: everything in memory at
    once."""
    base, *checks = [load_file(path) for path in paths]
    flat_checks = torch.vstack(
        [torch.cat([check[key].reshape(-1) for key in sorted(check)]) for check in checks]
    )
    flat_base = torch.cat([base[key].reshape(-1) for key in sorted(base)])
    return base, flat_base, flat_checks - flat_base


def save_flat(flat: torch.Tensor, like: dict, out: Path) -> None:
    pieces = flat.split([like[key].numel() for key in sorted(like)])
    save_file(
        {
            key: piece.reshape(like[key].shape)
            for key, piece in zip(sorted(like), pieces, strict=True)
        },
        out,
    )


def published_arithmetic(paths: list[Path], out: Path) -> None:
    base, flat_base, vectors = flattened(paths)
    save_flat(flat_base + COEFFICIENT * vectors.sum(0), base, out)


def published_ties(paths: list[Path], out: Path) -> None:
    """TIES on the stack of flat vectors, as the public CLIP code lines go about it: kthvalue by
    row, masks, signs, dis-sum."""
    base, flat_base, vectors = flattened(paths)
    entries = vectors.shape[1]
    least = vectors.abs().kthvalue(entries - int(entries * DENSITY), dim=1, keepdim=True).values
    trimmed = vectors * (vectors.abs() >= least)
    signs = torch.sign(trimmed.sum(0))
    signs[signs == 0] = torch.sign(signs.sum())
    agreeing = trimmed * torch.where(signs.unsqueeze(0) > 0, trimmed > 0, trimmed < 0)
    save_flat(flat_base + COEFFICIENT * agreeing.sum(0), base, out)


def streamed(method: str, check: bool = True):
    return lambda paths, out: merge_files(method, paths[0], paths[1:], out, check=check)


JOBS = {
    "read and write": floor,
    "read and write, with sha256": lambda paths, out: floor(paths, out, hashed=True),
    "task arithmetic": streamed("task_arithmetic", check=False),
    "task arithmetic, files checked": streamed("task_arithmetic"),
    "task arithmetic, published": published_arithmetic,
    "TIES": streamed("ties", check=False),
    "TIES, files checked": streamed("ties"),
    "TIES, published": published_ties,
}
LARGE = ("read and write", "task arithmetic", "TIES")


# Measuring


def status(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def child(job: str, paths: list[Path], out: Path) -> None:
    """Run one job and print its seconds, those of all threads, the process's peak memory, and how
    far the job raised it (bytes)."""
    linux = os.access(
        "/proc/self/clear_refs", os.W_OK
    )  # elsewhere ru_maxrss, which holds what the parent had as well
    if linux:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before = status("VmRSS") if linux else 0
    begin, used = time.perf_counter(), time.process_time()
    JOBS[job](paths, out)
    seconds, used = time.perf_counter() - begin, time.process_time() - used
    peak = (
        status("VmHWM")
        if linux
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024)
    )
    print(
        json.dumps({"seconds": seconds, "processor": used, "peak": peak, "growth": peak - before})
    )


def measure(job: str, paths: list[Path], out: Path) -> dict[str, float]:
    for path in paths:  # what an earlier job pushed out of the page cache comes back
        with open(path, "rb", buffering=0) as file:
            while file.read(CHUNK):
                pass
    done = subprocess.run(
        [sys.executable, __file__, "--job", job, "--out", out, "--paths", *paths],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(jobs, paths: list[Path], label: str, rounds: int) -> list[dict]:
    """One row a job: median seconds, median ratio to the floor of the same round, highest memory.
    The order turns every round."""
    found, model = {job: [] for job in jobs}, paths[0].stat().st_size
    for number in range(rounds):
        for job in list(jobs)[:: 1 if number % 2 == 0 else -1]:
            found[job].append(measure(job, paths, paths[0].with_name(f"out {job}.safetensors")))
            print(
                f"{label}, round {number + 1}, {job}: {found[job][-1]['seconds']:.2f} s",
                file=sys.stderr,
                flush=True,
            )
    floors = [each["seconds"] for each in found["read and write"]]
    return [
        {
            "models": label,
            "job": job,
            "seconds": statistics.median(each["seconds"] for each in runs),
            "processor (s)": statistics.median(each["processor"] for each in runs),
            "times the floor": statistics.median(
                each["seconds"] / floor for each, floor in zip(runs, floors, strict=True)
            ),
            "peak (GB)": max(each["peak"] for each in runs) / 1e9,
            "growth (models)": max(each["growth"] for each in runs) / model,
        }
        for job, runs in found.items()
    ]


def differing(left: Path, right: Path) -> float:
    """Share of entries, in percent, that differ by more than rounding."""
    a, b = load_file(left), load_file(right)
    return (
        100
        * sum(int(((a[key] - b[key]).abs() > 1e-6).sum()) for key in a)
        / sum(value.numel() for value in a.values())
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("/tmp/bvlib-merging"),
        help="where the files are made, or lie already",
    )
    parser.add_argument("--size", choices=["small", "B-32"], default="B-32")
    parser.add_argument(
        "--large",
        action="store_true",
        help="twenty L-14 towers as well (small ones with --size small)",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write results/merging.json")
    for name, how in (
        ("job", {}),
        ("out", {"type": Path}),
        ("paths", {"type": Path, "nargs": "+"}),
    ):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS, **how)
    args = parser.parse_args()
    if args.job:
        child(args.job, args.paths, args.out)
        return
    paths = prepare(args.folder, args.size, TASKS)
    rows = rows_of(JOBS, paths, f"{TASKS} of {args.size}", args.rounds)
    by = {row["job"]: row for row in rows}
    out = {job: paths[0].with_name(f"out {job}.safetensors") for job in JOBS}
    said = {
        "task arithmetic over reading and writing": by["task arithmetic"]["times the floor"],
        "TIES, times faster than published": by["TIES, published"]["seconds"]
        / by["TIES"]["seconds"],
        "TIES, files checked, times faster than published": by["TIES, published"]["seconds"]
        / by["TIES, files checked"]["seconds"],
        "TIES, percent of the published peak memory": 100
        * by["TIES, files checked"]["peak (GB)"]
        / by["TIES, published"]["peak (GB)"],
        "TIES, percent of entries unlike published": differing(out["TIES"], out["TIES, published"]),
        "task arithmetic, percent of entries unlike published": differing(
            out["task arithmetic"], out["task arithmetic, published"]
        ),
    }
    if args.large:
        size = "small" if args.size == "small" else "L-14"
        rows += rows_of(
            LARGE, prepare(args.folder / "many", size, 3, MANY), f"{MANY} of {size}", args.rounds
        )
        said["twenty models, growth in models"] = max(
            row["growth (models)"] for row in rows[-len(LARGE) :]
        )
    widths = [max(len(str(row[key])) for row in rows) for key in ("models", "job")]
    print(f"{'':{sum(widths) + 2}}  seconds  processor  x floor  peak (GB)  growth (models)")
    for row in rows:
        print(
            f"{row['models']:{widths[0]}}  {row['job']:{widths[1]}} {row['seconds']:8.2f} "
            f"{row['processor (s)']:10.2f} "
            f"{row['times the floor']:8.2f} {row['peak (GB)']:10.2f} {row['growth (models)']:16.2f}"
        )
    print(*(f"{name}: {value:.4g}" for name, value in said.items()), sep="\n")
    if args.write:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        write_json(
            Path(__file__).with_name("results") / "merging.json",
            {
                "environment": environment(device),
                "processor": processor(),
                "cores": os.cpu_count(),
                "rows": rows,
                "summary": said,
            },
        )


if __name__ == "__main__":
    main()
