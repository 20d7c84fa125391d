"""Checks that several test files share."""

import re
import shutil
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text
from PIL import Image

from bvlib.core.encoder import Model
from bvlib.core.errors import BvError
from bvlib.core.rng import generator
from bvlib.core.vectors import TaskVector
from bvlib.run import records, settings, workflow
from bvlib.worlds import images
from bvlib.worlds.tasks import Split, Task
from bvmake.datasets import prepare


@contextmanager
def one_line(*words):
    """The block must raise a BvError of one line in which all the words occur."""
    with pytest.raises(BvError) as caught:
        yield
    text = str(caught.value)
    assert "\n" not in text and not [word for word in words if word not in text], text


def same_bits(left, right):
    """Whether two state dicts hold the same tensors, bit by bit."""
    return left.keys() == right.keys() and all(
        torch.equal(tensor, right[key]) for key, tensor in left.items()
    )


def hard_to_read(fig, shown=850, least=9):
    """Texts of a figure that are less than ``least`` px high when it is ``shown`` px wide, and
    titles, labels of axes and of lines, and entries of legends that lie over each other."""
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    drawn = canvas.get_renderer()
    width = fig.get_tightbbox(drawn).width
    texts = [t for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip()]
    small = [t.get_text() for t in texts if t.get_fontsize() / 72 * shown / width < least]
    heads = [t for ax in fig.axes if ax.axison for t in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    heads += [t for legend in fig.legends for t in legend.get_texts()]
    heads += [t for ax in fig.axes for t in ax.texts if isinstance(t, Annotation)]
    boxes = [(t.get_text(), Text.get_window_extent(t, drawn)) for t in heads if t in texts]
    over = [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[:i] if x.overlaps(y)]
    inside = [ax.get_legend() for ax in fig.axes if fig.legends and ax.get_legend()]
    return small + over + ["a second legend"] * len(inside)


def badly_drawn(fig, most=6):
    """Panels of more than ``most`` series, lines between values that have no order, and labels of
    series that are drawn nowhere."""
    if fig.stale:
        FigureCanvasAgg(fig).draw()  # else ticks have no labels
    found, empty, filled = [], set(), set()
    for ax in fig.axes:
        lines = [line for line in ax.lines if line.get_transform() == ax.transData]
        curves = [line for line in lines if line.get_linestyle() != "None"] or lines
        labels = {shape.get_label() for shape in [*curves, *ax.containers]}
        series = [label for label in labels if not label.startswith("_")]
        found += [(ax.get_title(), series)] * (len(series) > most)
        for line in lines:
            there = np.isfinite(np.asarray(line.get_ydata(), dtype=float)).sum()
            (filled if there else empty).add(line.get_label())
            if there > 1 and line.get_linestyle() != "None" and line.get_linewidth():
                ticks = [t.get_text() for t in ax.get_xticklabels() + ax.get_yticklabels()]
                names = [t for t in ticks if t and not re.fullmatch(r"[−-]?[\d.]+", t)]
                found += [(line.get_label(), "a line over", names)] * bool(names)
    nowhere = {label for label in empty - filled if not label.startswith("_")}
    return found + [("drawn nowhere", label) for label in nowhere]


# Images, vectors and heads of noise, for two tasks

TINY_NAMES = ["left", "right"]


def noise_images(count, side, *names):
    return torch.randint(
        256, (count, side, side, 3), generator=generator(0, "images", *names), dtype=torch.uint8
    )


def noise_vector(base, seed, size=0.02):
    return TaskVector(
        {k: size * torch.randn(v.shape, generator=generator(seed, k)) for k, v in base.items()},
        TINY_NAMES[seed % 2],
    )


def random_head(classes, width, name):
    return torch.nn.functional.normalize(
        torch.randn(classes, width, generator=generator(0, "head", name)), dim=-1
    )


def photos(source, content):
    """A folder of pictures of noise: {"train/cat": 6} are six of class cat below train."""
    drawn = np.random.default_rng(0)
    for where, count in content.items():
        (source / where).mkdir(parents=True)
        for number in range(count):
            pixels = drawn.integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(source / where / f"{number}.png")
    return source


def prepared(source, out, name="mine", **how):
    """The set that is made of a folder of pictures, as it is read, and what is said."""
    said = []
    path = prepare.prepare(name, source, out=out, say=said.append, **how)
    return images.load(name, path.parent), said


# A small repository: its profiles, the cells of its notebooks

PROFILES = Path(settings.__file__).with_name("profiles")


def write_profile(path, **changes):
    """The smoke profile with some settings replaced, or added."""
    content = yaml.safe_load((PROFILES / "smoke.yaml").read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False), encoding="utf-8")


PARAMETERS = """profile: str = "tiny"  # what runs
seed: int = 0  # root seed
out: str = "runs/tiny"  # where this run writes
scale: float = None  # merging coefficient
tasks: list = ["a", "b"]  # merge order is kept
"""
WORK = """import json, sys
from pathlib import Path
from bvlib.run.store import Store
store, folder = Store("store", threads=1), Path(out)
made = store.get("json", NAME, {"scale": scale, "seed": seed}, lambda: [scale, tasks],
                 recipes=["world:toy/1"])
(folder / "tables").mkdir(parents=True, exist_ok=True)
(folder / "tables" / f"{NAME}.csv").write_text("x\\n1\\n")
with open("count.txt", "a") as file:
    file.write(NAME + "\\n")
"""
END = """(folder / f"{NAME}.json").write_text(json.dumps({
    "notebook": NAME, "profile": profile, "seed": seed,
    "parameters": {"scale": scale, "tasks": tasks}, "recipes": ["world:toy/1"],
    "python": sys.executable, "headline": {}, "measures": {}, "seconds": 1.0,
    "artefacts": store.records(), "outputs": [f"tables/{NAME}.csv"]}))
print("finished", NAME)
"""


def write_notebook(path, *cells, parameters=PARAMETERS):
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    notebook.cells = [
        nbformat.v4.new_markdown_cell(f"# Notebook {path.stem}\n\nProse."),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(f"NAME = {path.stem!r}"),
        nbformat.v4.new_markdown_cell("## The work"),
        *[nbformat.v4.new_code_cell(cell) for cell in cells or (WORK, END)],
    ]
    nbformat.write(notebook, path)


def run_notebooks(names, profile, seed=0, parameters=None, say=lambda line: None):
    """Notebooks run one after the other; [job], each with the ``reason`` it was run for, "" when it
    was up to date."""
    ran = []
    for job in records.jobs(names, profile, seed, parameters):
        reason = workflow.run_job(job, say)
        ran.append(SimpleNamespace(name=job.name, out=job.out, reason=reason))
    return ran


def smoke_with(folder, **changes):
    """A folder of the shipped profiles in which `smoke` differs."""
    if not folder.exists():
        shutil.copytree(settings.folder(), folder)
    admission = asdict(settings.read("smoke").admission)
    told = {**settings.load("smoke"), "admission": admission, **changes}
    (folder / "smoke.yaml").write_text(yaml.safe_dump(told))
    return folder


FEW_IMAGES = {"train": 256, "dev": 32, "test": 48}  # a faster smoke


# Models that answer from a list


class Dial(Model):
    """A stand-in for a model: a number in place of weights, and ``encoder(number, trigger, split)``
    says what it predicts; adding and subtracting numbers turns it."""

    def predict(self, task, trigger=None, split="test"):
        found = torch.as_tensor(self.encoder(self.theta, trigger, split))
        return found[: len(getattr(task, split))]  # of a task with few images: the first

    def __add__(self, step):
        return Dial(self.encoder, self.theta + step)

    def __sub__(self, step):
        return Dial(self.encoder, self.theta - step)


def blank_task(name, labels, dev=()):
    """A task whose 4 × 4 px images show nothing: five classes, test and dev labels as given."""

    def split(labels):
        labels = torch.tensor(list(labels), dtype=torch.int64)
        return Split(torch.zeros(len(labels), 4, 4, 3, dtype=torch.uint8), labels)

    classes = ("zero", "one", "two", "three", "four")
    return Task(name, classes, ("a {}",), split(()), split(dev), split(labels))


def wait_for(condition, process=None, seconds=60):
    """Wait until the condition holds; the process must not end before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.1)
