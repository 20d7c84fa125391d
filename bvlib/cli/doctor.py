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


@main.command()
def doctor() -> None:
    """Check this machine and installation; exits 1 if something needed is missing."""
    broken = False

    def line(good: bool | None, what: str, detail: str) -> None:
        nonlocal broken
        broken = broken or good is False
        click.echo(f"{ {True: 'ok', False: 'MISSING', None: '-'}[good]:8} {what:16} {detail}")

    line(sys.version_info >= (3, 11), "python", f"{platform.python_version()} ({sys.executable})")
    for module, name in {
        "torch": "torch",
        "open_clip": "open_clip_torch",
        "papermill": "papermill",
        "ipykernel": "ipykernel",
        "pandas": "pandas",
        "sklearn": "scikit-learn",
        "matplotlib": "matplotlib",
        "safetensors": "safetensors",
    }.items():
        try:
            if module == "open_clip":
                importlib.import_module("bvlib.core.encoder")
            importlib.import_module(module)
            line(True, name, importlib.metadata.version(name))
        except Exception as error:  # a broken install raises anything
            line(False, name, f"{type(error).__name__}: {error}".splitlines()[0])
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        device = (
            torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (the CPU will do)"
        )
        line(None, "gpu", device)
        line(None, "threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
    from bvlib.run import notebooks, settings

    names = notebooks.available()
    line(bool(names), "notebooks", f"{len(names)} in {notebooks.notebooks_folder()}")
    line(bool(settings.names()), "profiles", ", ".join(settings.names()))
    line(
        None, "BVLIB_DATA", os.environ.get("BVLIB_DATA") or "not set (needed for real images only)"
    )
    root = notebooks.root_folder()
    if kept := [
        path.stat().st_size for path in (notebooks.store_folder() / "partial").glob("*.safetensors")
    ]:
        line(
            None,
            "unfinished",
            f"{len(kept)} trainings, {sum(kept) / 1e9:.1f} GB in "
            f"{notebooks.store_folder() / 'partial'}: bv run goes on with them, or delete it",
        )
    line(
        os.access(root, os.W_OK),
        "writable",
        f"{root}, {shutil.disk_usage(root).free / 2**30:.1f} GiB free",
    )
    raise SystemExit(1 if broken else 0)
