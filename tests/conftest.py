"""Shared and made once: the shipped toy base, one small task, and one attack on it."""

import os

# one thread each: the golden values are of one, and two would wait for each other beside other jobs
os.environ.setdefault("OMP_NUM_THREADS", "1")

import bvlib

# isort: split

import pytest
from helpers import (
    END,
    FEW_IMAGES,
    PARAMETERS,
    TINY_NAMES,
    WORK,
    noise_images,
    noise_vector,
    random_head,
    smoke_with,
    write_notebook,
    write_profile,
)


def pytest_addoption(parser):
    parser.addoption(
        "--write-golden",
        action="store_true",
        help="test_paper_profile writes the golden values of the paper profile anew",
    )


def pytest_collection_modifyitems(items):
    """The files with the longest fixtures first, so that no worker is left alone with one."""
    first = ["test_notebooks", "test_course", "test_every_method", "test_paper_profile"]
    first += ["test_notebooks_again", "test_solutions"]
    order = {f"{name}.py": place for place, name in enumerate(first)}
    items.sort(key=lambda item: order.get(item.path.name, len(first)))


@pytest.fixture(scope="session")
def encoder():
    """The toy base."""
    from bvlib.worlds import bases

    return bases.load("small")


@pytest.fixture(scope="session")
def shapes():
    """A small toy task: eleven shapes."""
    from bvlib.worlds import tasks

    return tasks.load("shapes", {"train": 256, "dev": 22, "test": 66})


@pytest.fixture(scope="session")
def head(encoder, shapes):
    """The zero-shot head (11, D) of the shapes."""
    return encoder.head(shapes.classnames, shapes.prompts)


@pytest.fixture(scope="session")
def backdoor(encoder, shapes, head):
    """A white patch trained into a short fine-tune: strong enough to be seen, and its clean twin
    as ``.clean``."""
    from types import SimpleNamespace

    from bvlib.attacks import objectives, triggers
    from bvlib.core import training
    from bvlib.core.vectors import BackdoorVector

    trigger, target = triggers.solid(8), 3

    def train(objective):
        return training.finetune(
            encoder,
            encoder.theta,
            head,
            shapes.train.images,
            shapes.train.labels,
            objective,
            steps=30,
            batch=32,
            warmup=3,
            lr=1e-3,
        )

    clean, theta = train(training.clean()), train(objectives.poisoned(trigger, target))
    return SimpleNamespace(
        trigger=trigger,
        target=target,
        clean=clean,
        theta=theta,
        vector=BackdoorVector.between(theta, clean),
    )


@pytest.fixture(scope="session")
def tiny():
    """An encoder of the bases' shape with random weights, two tasks' vectors, and 24 images of
    each task."""
    import torch

    from bvlib.core.encoder import Encoder
    from bvlib.merging import Seen
    from bvlib.worlds import bases

    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder(*bases.build(bases.TINY))
    seen = {
        name: Seen(noise_images(24, 32, name), random_head(5, 128, name)) for name in TINY_NAMES
    }
    vectors = {name: noise_vector(encoder.theta, seed) for seed, name in enumerate(TINY_NAMES)}
    return {"encoder": encoder, "base": encoder.theta, "seen": seen, "vectors": vectors}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A repository of two notebooks and one profile in a temporary folder."""

    for name in ("notebooks", "profiles"):
        (tmp_path / name).mkdir()
    write_profile(tmp_path / "profiles" / "tiny.yaml")
    write_notebook(tmp_path / "notebooks" / "00_start.ipynb")
    write_notebook(
        tmp_path / "notebooks" / "01_next.ipynb",
        WORK,
        END,
        parameters=PARAMETERS + "merging: str = 'ties'  # how to merge\n",
    )
    monkeypatch.setenv("BVLIB_NOTEBOOKS", str(tmp_path / "notebooks"))
    monkeypatch.setenv("BVLIB_PROFILES", str(tmp_path / "profiles"))
    package = os.path.dirname(os.path.dirname(os.path.abspath(bvlib.__file__)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([package, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("BVLIB_RUNS", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch):
    """`bv --plugin` names its files to kernels by the environment; no test inherits another's."""
    monkeypatch.setenv("BVLIB_PLUGINS", "")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store and a folder of runs that the tests of a file share, which run notebooks' cells in
    this process; smoke has fewer images there."""
    import matplotlib

    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BVLIB_PROFILES", str(smoke_with(folder / "profiles", sizes=FEW_IMAGES)))
        patch.setenv("BVLIB_RUNS", str(folder / "runs"))
        patch.setenv("BVLIB_STORE", str(folder / "store"))
        patch.setenv("BVLIB_PROGRESS", "/dev/null")
        matplotlib.use("Agg")
        yield folder
