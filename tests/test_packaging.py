"""What a clone is made of: declared, pinned, in step, and free of anybody's paths."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bvlib", "bvmake")
CONDA_NAMES = {"pytorch": "torch"}
CONDA_ONLY = {"python", "pip", "make", "git"}
DISTRIBUTIONS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "open_clip": "open-clip-torch",
}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared(test: bool = True) -> dict[str, Requirement]:
    lines = project()["dependencies"] + (project()["optional-dependencies"]["test"] if test else [])
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def pinned() -> dict[str, Requirement]:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and line[0] != "#"
    ]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def kept_files() -> list[Path]:
    """What git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_environment_yml_is_in_step():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(item["pip"] for item in listed if isinstance(item, dict))
    assert "-e ." in pip
    conda = [item for item in listed if isinstance(item, str)] + [
        item for item in pip if item != "-e ."
    ]
    found = {}
    for requirement in map(Requirement, conda):
        name = canonicalize_name(requirement.name)
        found[CONDA_NAMES.get(name, name)] = requirement.specifier
    assert found.pop("python") == Requirement(f"python{project()['requires-python']}").specifier
    wanted = {name: requirement.specifier for name, requirement in declared().items()}
    assert {name: spec for name, spec in found.items() if name not in CONDA_ONLY} == wanted


def test_constraints_are_exact_and_satisfy_the_ranges():
    pins = pinned()
    for name, pin in pins.items():
        (spec,) = pin.specifier
        assert spec.operator == "==" and not Version(spec.version).local and not pin.url, name
        assert not name.startswith("nvidia"), name
    for name, requirement in declared().items():
        assert name in pins, f"{name} is not pinned in constraints.txt"
        (spec,) = pins[name].specifier
        assert requirement.specifier.contains(spec.version), (
            f"{requirement} excludes {spec.version}"
        )
    assert (
        str(pins["torch"].specifier) == "==2.13.0"
        and str(pins["torchvision"].specifier) == "==0.28.0"
    )


def test_every_import_is_declared():
    known = set(declared(test=False)) | {*PACKAGES}
    for file in sorted(file for name in PACKAGES for file in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names:
                name = canonicalize_name(DISTRIBUTIONS.get(top, top))
                assert name in known or top == "IPython", (
                    f"{file.name} imports {top}: not in pyproject.toml"
                )


def test_package_data_is_matched():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    for package in PACKAGES:
        patterns, folder = tool["setuptools"]["package-data"][package], ROOT / package
        matched = {path for pattern in patterns for path in folder.glob(pattern)}
        data = {p for p in kept_files() if p.is_relative_to(folder) and p.suffix != ".py"}
        assert data <= matched, f"not packaged: {sorted(map(str, data - matched))}"


def test_no_path_of_a_machine_is_kept():
    pattern = re.compile(rb"(?<![\w./~-])/(?:home|Users|root|work|tmp/w|tmp/bash)/[\w.-]+")
    allowed = {ROOT / "tests" / "test_packaging.py"}
    found = [
        f"{file.relative_to(ROOT)}: {match.group().decode()}"
        for file in kept_files()
        if file not in allowed and file.suffix not in {".png", ".safetensors", ".gz", ".npz"}
        for match in pattern.finditer(file.read_bytes())
    ]
    assert not found, found


def test_data_and_runs_are_ignored():
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    names = [
        "data/cifar10.npz",
        "data/torchvision/x",
        "runs/mini/x",
        "store/x",
        ".venv/x",
        "data/README.md",
    ]
    names += ["bvlib/run/store.py", "figures/mini/x.png", "bvlib/worlds/weights/toy.safetensors"]
    command = ["git", "check-ignore", "--no-index", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == names[:5]


def test_citation_names_both_papers():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cff["cff-version"] == "1.2.0" and cff["version"] == project()["version"]
    assert cff["license"] == project()["license"]
    papers = {item["value"]: item for p in cff["references"] for item in [p["identifiers"][0] | p]}
    assert len(papers["arXiv:2510.08016"]["authors"]) == 4
    assert len(papers["arXiv:2408.07362"]["authors"]) == 6


@pytest.fixture
def make(tmp_path):
    """make(*words) in a copy of what the Makefile needs, free of the flags of a make around the
    tests."""
    if not shutil.which("make"):
        pytest.skip("no make")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))
    }
    command = ["make", "-C", str(tmp_path)]
    return lambda *words: subprocess.run(
        [*command, *words], env=clean, capture_output=True, text=True
    )


def test_make_targets_say_what_they_would_do(tmp_path, make):
    listed = make("help").stdout
    for target in ("reproduce", "test", "check", "lab", "clean-venv"):
        assert f"make {target}" in listed
        assert make("-n", target).returncode == 0
    assert "pip install" in make("-n", "test").stdout
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    assert "pip install" not in make("-n", "test").stdout, (
        "a stamp newer than its files installs nothing"
    )


def test_an_old_python_gets_one_clear_line(tmp_path, make):
    old = tmp_path / "old"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2 && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = make("-s", "test", f"PYTHON={old}")
    assert done.returncode != 0 and not (tmp_path / ".venv").exists()
    assert "bvlib needs Python 3.11 or newer" in done.stdout and "is Python 3.9.2" in done.stdout


@pytest.mark.parametrize(
    "given, spin",
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_are_told_how_to_wait_before_torch_is_loaded(given, spin):
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    code = "import os, sys, bvlib; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(spin), "False"]
