"""How a case from the field is tried: a call of `bv` or of the library, and what it says."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from PIL import Image

from bvlib.cli import main as bv
from bvlib.core.errors import BvError

ROWS: list[dict[str, Any]] = []


def row(case: str, tried: str, code: int, said: str) -> None:
    """Keep a case; of what is printed, the words without the scratch folder's name."""
    lines = [line for line in said.replace(os.getcwd(), ".").splitlines() if line.strip()]
    lines = [line.removeprefix("bv: ") for line in lines]
    ROWS.append({"case": case, "input": tried, "exit": code, "said": " | ".join(lines[-4:])[:400]})


def call(case: str, tried: str, function: Callable[[], Any]) -> None:
    """A call of the library: its result, or the line that refuses it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row(case, tried, 0, str(function()))
    except BvError as error:
        row(case, tried, 2, str(error))


def cli(case: str, *words: Any, tried: str = "") -> None:
    """A call of `bv`."""
    found = CliRunner().invoke(bv, list(map(str, words)))
    clear = found.exception is None or isinstance(found.exception, SystemExit)
    said = found.output if clear else f"traceback: {found.exception!r}"
    row(
        case,
        tried or f"bv {' '.join(map(str, words))}".replace(os.getcwd(), "."),
        found.exit_code,
        said,
    )


def photos(name: str, content: dict[str, int], deep: str = "") -> Path:
    """A folder of pictures: {"train/cat": 6} are six of class cat below train."""
    drawn = np.random.default_rng(0)
    for where, count in content.items():
        Path(name, where).mkdir(parents=True)
        for number in range(count):
            pixels = drawn.integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(name, where, f"{number}.png"))
    return Path(name)


def prepare(case: str, source: Path, tried: str, name: str = "mine") -> None:
    """Make a set of a folder, into an empty data folder."""
    os.environ["BVLIB_DATA"] = os.path.abspath("sets")
    shutil.rmtree("sets", ignore_errors=True)
    Path("sets").mkdir()
    cli(case, "data", "prepare", name, "--from", source, tried=tried)


@contextmanager
def scratch() -> Iterator[None]:
    """A folder of its own, and an environment that is put back."""
    here, kept = os.getcwd(), dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["BVLIB_RUNS"] = f"{folder}/runs"
        try:
            yield
        finally:
            os.chdir(here)
            os.environ.clear()
            os.environ.update(kept)
