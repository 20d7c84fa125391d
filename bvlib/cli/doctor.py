"""bv doctor: is all there that a run needs?"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys

import click

from bvlib.cli.main import main

NEEDED = {  # module: distribution
    "torch": "torch",
    "open_clip": "open_clip_torch",
    "papermill": "papermill",
    "ipykernel": "ipykernel",
    "pandas": "pandas",
    "sklearn": "scikit-learn",
    "matplotlib": "matplotlib",
    "safetensors": "safetensors",
}


@main.command()
def doctor() -> None:
    """Check this machine and installation; exits 1 if something needed is missing."""
    broken = False

    def line(good: bool | None, what: str, detail: str) -> None:
        nonlocal broken
        broken = broken or good is False
        click.echo(f"{ {True: 'ok', False: 'MISSING', None: '-'}[good]:8} {what:16} {detail}")

    line(sys.version_info >= (3, 11), "python", f"{platform.python_version()} ({sys.executable})")
    for module, name in NEEDED.items():
        try:
            if module == "open_clip":
                importlib.import_module("bvlib.core.encoder")
            importlib.import_module(module)
            line(True, name, importlib.metadata.version(name))
        except Exception as error:  # a broken install raises anything
            line(False, name, f"{type(error).__name__}: {error}".splitlines()[0])
    if torch := sys.modules.get("torch"):
        there = torch.cuda.is_available()
        line(None, "gpu", torch.cuda.get_device_name(0) if there else "none (the CPU will do)")
        line(None, "threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
    from bvlib.run import notebooks, settings

    names, data = notebooks.available(), os.environ.get("BVLIB_DATA")
    line(bool(names), "notebooks", f"{len(names)} in {notebooks.notebooks_folder()}")
    line(bool(settings.names()), "profiles", ", ".join(settings.names()))
    line(None, "BVLIB_DATA", data or "not set (needed for real images only)")
    root, partial = notebooks.root_folder(), notebooks.store_folder() / "partial"
    if kept := [path.stat().st_size for path in partial.glob("*.safetensors")]:
        what = f"{len(kept)} trainings, {sum(kept) / 1e9:.1f} GB in {partial}"
        line(None, "unfinished", f"{what}: bv run goes on with them, or delete it")
    free = shutil.disk_usage(root).free / 2**30
    line(os.access(root, os.W_OK), "writable", f"{root}, {free:.1f} GiB free")
    raise SystemExit(1 if broken else 0)
