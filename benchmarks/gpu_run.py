"""Headline numbers of notebooks that ran on a GPU, seed 0, beside the committed ones, which a CPU
gave. See README.md here.

bv run --profile real32; python benchmarks/gpu_run.py runs/real32/seed-0
"""

import argparse
import json
from pathlib import Path

from report import gpu, write

from bvlib.core.errors import BvError


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of seed 0 of a run on a GPU")
    parser.add_argument("--gpu", help="the name of that GPU, if it is not in this machine")
    args = parser.parse_args()
    made = [read(path) for path in sorted(args.folder.glob("[0-9]*.json"))]
    if not made or any(one["environment"]["device"] != "cuda" for one in made):
        raise BvError(
            f"{args.folder} holds no notebooks that ran on a GPU: give the folder of a run's "
            "seed, as runs/real32/seed-0"
        )
    committed = read(
        Path(__file__).parents[1] / "figures" / args.folder.resolve().parent.name / "expected.json"
    )["headline"]
    write(
        "gpu_run",
        [
            {
                "notebook": one["notebook"],
                "seconds": one["seconds"],
                "number": number,
                "unit": got["unit"],
                "GPU": got["value"],
                "CPU": committed[number]["value"],
                "difference": got["value"] - committed[number]["value"],
            }
            for one in made
            for number, got in one["headline"].items()
            if number in committed
        ],
        {"environment": made[0]["environment"], **({"gpu": args.gpu} if args.gpu else gpu())},
    )


if __name__ == "__main__":
    main()
