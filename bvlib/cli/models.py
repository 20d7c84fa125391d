"""bv export, import, admit, pretrain: models that come and go."""

from __future__ import annotations

from pathlib import Path

import click

from bvlib.cli.main import main
from bvlib.cli.options import PROFILE, flag, path_option
from bvlib.core.errors import BvError


@main.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1)
@click.option("--profile", default=None, help="only what runs of this profile used")
@click.option("--seed", type=int, default=None, help="only what runs of this seed used")
@click.option("--notebook", default=None, metavar="01", help="only what this notebook used")
def export_(
    folder: Path,
    names: tuple[str, ...],
    profile: str | None,
    seed: int | None,
    notebook: str | None,
) -> None:
    """Put stored weights and triggers into FOLDER, a folder each as on the Hugging Face hub, to
    hand on: all, or NAMES like 'clean-*'."""
    from bvlib.run import exchange
    from bvlib.run.notebooks import store_folder

    chosen = None
    if profile or seed is not None or notebook:
        chosen = exchange.of_runs(profile or "mini", seed, notebook)
    done = exchange.export_folder(folder, store_folder(), names, chosen)
    for line in done.refused:
        click.echo(f"bv: {line}", err=True)
    click.echo(
        f"{done.brought} files written to {folder}, {done.there} were there: {done.bytes:,} bytes"
    )


@main.command("import")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--task-vector",
    type=click.Path(path_type=Path),
    metavar="FILE.pt",
    help="a fine-tuned image tower, with --base",
)
@click.option(
    "--hugging-face",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="CLIP weights in Hugging Face's form",
)
@click.option(
    "--trigger",
    type=click.Path(path_type=Path),
    metavar="FILE.npy",
    help="a trigger of the BadMerging code",
)
@click.option(
    "--base",
    default=None,
    help="what weights must fit: a shipped base, a .safetensors file, or a name like ViT-B-32",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.safetensors",
    help="where a single file goes",
)
@click.pass_context
def import_(
    context: click.Context,
    folder: Path | None,
    base: str | None,
    out: Path | None,
    **files: Path | None,
) -> None:
    """Put what `bv export` wrote to FOLDER, or one model of it, into the store; or one file of
    others into --out. Nothing in them is run.

    Import from people you trust: that a file is undamaged does not say how its weights were made.
    """
    from bvlib.run import exchange
    from bvlib.run.notebooks import store_folder

    given = {kind.replace("_", "-"): path for kind, path in files.items() if path is not None}
    if len(given) + (folder is not None) != 1:
        raise BvError(
            "bv import takes one thing: a FOLDER, --task-vector, --hugging-face or --trigger"
        )
    for kind, path in given.items():
        if out is None:
            raise BvError(f"--{kind} needs --out FILE.safetensors")
        click.echo(f"wrote {exchange.import_file(kind, path, out, base)}")
    if folder is None:
        return
    from bvlib.core.encoder import default_device
    from bvlib.run.store import environment

    done = exchange.import_folder(folder, store_folder(), environment(default_device().type))
    for line in done.refused:
        click.echo(f"bv: {line}", err=True)
    click.echo(
        f"{done.brought} files put into the store, {done.there} were there: {done.bytes:,} bytes"
    )
    if done.foreign:
        click.echo(
            f"{done.foreign} of them were made by other versions of recipes or in another "
            "environment: bv run makes its own instead"
        )
    context.exit(2 if done.refused else 0)


@main.command()
@PROFILE
@click.option("--base", help="another base than the profile's: its page goes under runs/")
@click.option("--seed", type=int, help="a development seed, 100 or more (default: the profile's)")
@flag("--freeze", help="afterwards write recipe and hash into the base's card")
def admit(profile: str, base: str | None, seed: int | None, freeze: bool) -> None:
    """Check whether a base is fit for the study, on clean quantities and its own sensitivity;
    optionally freeze it."""
    from bvlib.report import admission
    from bvlib.run.notebooks import shown

    if freeze and (base or seed is not None):
        raise BvError(
            "--freeze is for the profile's own base and seed: leave out --base and --seed"
        )
    click.echo(f"wrote {shown(admission.write(profile, base, seed, say=click.echo))}")
    if freeze:
        admission.freeze(profile, say=click.echo)


@main.command()
@click.option("--profile", default="toy", show_default=True, help="the recipe of the base to train")
@click.option("--seed", type=int, default=0, show_default=True)
@path_option("--out", help="the .safetensors file to write")
def pretrain(profile: str, seed: int, out: Path | None) -> None:
    """Train a base from nothing; a training that was stopped goes on where it was."""
    from bvlib.worlds import pretrain as training

    click.echo(f"wrote {training.main(profile, seed=seed, out=out, say=click.echo)}")
