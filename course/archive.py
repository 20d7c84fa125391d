"""Pack what a student installs into one archive: python course/archive.py CLASS [--wheels WHERE …]

CLASS is a folder that `make course` made. The archive, CLASS/bvcourse.zip, holds the assignments,
the models, bvlib with its base, and `install.py`. With --wheels and one or more of linux, macos,
windows it also holds every library for these systems, so that it installs without a network. uv
says which these are, as pip cannot for another system. PIP_ARGS in the environment is handed to
both, for instance the index of a torch without CUDA.
"""

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MACOS = 14  # torch has no wheel for an older one
SYSTEMS = {  # its name for uv, and for pip
    "linux": ("x86_64-manylinux_2_28", [f"manylinux_2_{n}_x86_64" for n in (28, 17, 12, 5)]),
    "macos": (
        "aarch64-apple-darwin",
        [f"macosx_{n}_0_arm64" for n in range(MACOS, 10, -1)]
        + [f"macosx_{n}_universal2" for n in ("14_0", "11_0", "10_15", "10_13", "10_9")],
    ),
    "windows": ("x86_64-pc-windows-msvc", ["win_amd64"]),
}


def call(*command: str, **how) -> None:
    """Run pip, or uv; CalledProcessError if it fails."""
    own = shlex.split(os.environ.get("PIP_ARGS", ""))
    subprocess.run([sys.executable, "-m", *command, *own], check=True, **how)


def wheels(folder: Path, system: str, python: str) -> None:
    """Download every library for a system into a folder."""
    name, tags = SYSTEMS[system]
    bvlib = next(folder.glob("bvlib-*.whl"))
    asked = ["--python-version", python, "--only-binary", ":all:", "--quiet"]
    told = ["--no-header", "--no-annotate", "-c", str(HERE.parent / "constraints.txt")]
    env = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": f"{MACOS}.0"}
    with tempfile.TemporaryDirectory() as scratch:
        every, ours = Path(scratch, "every.txt"), Path(scratch, "ours.txt")
        ours.write_text(f"bvlib @ {bvlib.resolve().as_uri()}\n", encoding="utf-8")
        how = ["--python-platform", name, *asked, *told, "--output-file", str(every)]
        call("uv", "pip", "compile", str(ours), *how, env=env, stdout=subprocess.DEVNULL)
        lines = every.read_text(encoding="utf-8").splitlines()
        libraries = [line for line in lines if not line.startswith("bvlib ")]
        every.write_text("\n".join(libraries), encoding="utf-8")
        named = [part for tag in tags for part in ("--platform", tag)]
        named += ["--implementation", "cp", "--no-deps", "--dest", str(folder)]
        call("pip", "download", *asked, *named, "-r", str(every))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("classroom", type=Path)
    parser.add_argument("--wheels", nargs="*", choices=list(SYSTEMS), default=[])
    here = platform.python_version()
    parser.add_argument("--python", default=here, help="version that the students have, as 3.12.8")
    given = parser.parse_args()
    root = given.classroom / "bvcourse"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(given.classroom / "release", root)
    shutil.copytree(given.classroom / "pack", root / "pack")
    for path in ("install.py", "students.md", "ethics.md", "../constraints.txt"):
        shutil.copy(HERE / path, root)
    (root / "wheels").mkdir()
    own = ["--quiet", "--no-deps", "--wheel-dir", str(root / "wheels"), str(HERE.parent)]
    call("pip", "wheel", *own)
    for system in given.wheels:
        wheels(root / "wheels", system, given.python)
    made = shutil.make_archive(str(root), "zip", root.parent, root.name)
    print(f"{made}: {Path(made).stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
