"""The `bv` command line: list, plan, run, report, data, export, import, doctor, admit, pretrain.

Imports that take long stay inside the commands, so that `bv --help`, `bv report` and a `bv run`
with nothing to do answer at once. A BvError prints one line and exits with 2.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from bvlib.core.errors import BvError


class Group(click.Group):
    """A group of commands that turns a BvError into one line and exit code 2, an interrupt into
    130."""

    def invoke(self, ctx: click.Context) -> Any:
        from bvlib.run.runner import NotebookFailed

        try:
            return super().invoke(ctx)
        except NotebookFailed as error:
            click.echo(f"bv: {error}", err=True)
            ctx.exit(1)
        except BvError as error:
            click.echo(f"bv: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo(
                "bv: stopped; what was computed is kept, the same command goes on from there",
                err=True,
            )
            ctx.exit(130)


def seed_list(seed: int | None, seeds: str | None) -> list[int] | None:
    """The seeds of `--seed 0` or `--seeds 0,1,2`; None if neither was given. BvError if no
    number."""
    if seeds is None:
        return None if seed is None else [seed]
    try:
        found = [int(item) for item in seeds.split(",")]
    except ValueError:
        raise BvError(
            f"--seeds wants whole numbers with commas, like 0,1,2; got {seeds!r}"
        ) from None
    return list(dict.fromkeys(found))


def parse_value(text: str) -> Any:
    """The value of `-p name=value`: a Python or YAML literal (number, list, true, none, ...), else
    text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    if text.lower() in ("true", "false", "none", "null"):
        return {"true": True, "false": False}.get(text.lower())
    if text[:1] in ("[", "{"):
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise BvError(f"cannot read the value {text!r}: write a list like [a, b]") from None
    return text


def parse_parameters(items: tuple[str, ...]) -> dict[str, Any]:
    """{name: value} of all `-p name=value`. BvError for an item without `=`."""
    found = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise BvError(f"-p wants name=value, got {item!r}")
        found[name.strip()] = parse_value(text.strip())
    return found


PROFILE = click.option(
    "--profile", default="mini", show_default=True, help="smoke, mini, real32 or paper"
)
SEED = click.option("--seed", type=int, default=None, help="one seed (run: 0 if not given)")
SEEDS = click.option("--seeds", default=None, metavar="0,1,2", help="several seeds")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Backdoors in model merging: Backdoor Vectors and BadMerging, reproduced."""


@main.command("list")
@click.argument("notebook", required=False)
def list_(notebook: str | None) -> None:
    """List notebooks, profiles, tasks, attacks, merging methods, defences and claims; with a
    NOTEBOOK, its parameters."""
    from bvlib.attacks import recipes, triggers
    from bvlib.defences import defence
    from bvlib.merging import adaptive, datafree
    from bvlib.report import claims
    from bvlib.run import settings
    from bvlib.run.notebooks import every, find
    from bvlib.worlds import tasks  # noqa: F401

    if notebook:
        for item in find([notebook]):
            click.echo(f"{item.name}: {item.title}")
            for p in item.parameters.values():
                tail = f"  # {p.help}" if p.help else ""
                click.echo(f"  {p.name}: {p.type or 'any'} = {p.default!r}{tail}")
        return
    click.echo("notebooks (bv list 01 shows the parameters of one)")
    for item in every():
        click.echo(
            f"  {item.name:28} {item.title}{' (long: runs by name only)' if item.long else ''}"
        )
    click.echo("profiles")
    for name in settings.names():
        click.echo(f"  {name:28} {settings.load(name).get('about', '')}".rstrip())
    for what, names in (
        ("tasks", tasks.known()),
        ("merging methods", [*datafree.MERGING, *adaptive.ADAPTIVE, "surgery"]),
        ("backdoor merging", datafree.BV_MERGING),
        ("defences", list(defence)),
        ("triggers", [*recipes.TRIGGERS, *recipes.OPTIMISED]),
        ("places", triggers.PLACES),
    ):
        click.echo(f"{what}\n  {', '.join(names)}")
    click.echo("attacks")
    for item in recipes.ATTACKS.values():
        click.echo(f"  {item.name:28} {item.what}")
    click.echo("claims")
    for claim in claims.CLAIMS:
        click.echo(f"  {claim.id:28} {claim.statement}")


@main.command()
@click.argument("notebooks", nargs=-1)
@PROFILE
@SEED
@SEEDS
@click.option(
    "--preset",
    default=None,
    help="evening, six-tasks or everything: notebooks and seeds chosen beforehand",
)
@click.option("--base", default=None, help="another base than the profile's, such as ViT-L-14")
@click.option(
    "--memory", type=float, default=None, metavar="GB", help="does it fit a card of so much memory?"
)
@click.option(
    "--probe",
    "within",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="to measure this device",
)
@click.option(
    "--count",
    "folder",
    type=click.Path(path_type=Path),
    hidden=True,
    help="count this folder's finished runs",
)
def plan(
    notebooks: tuple[str, ...],
    profile: str,
    seed: int | None,
    seeds: str | None,
    preset: str | None,
    base: str | None,
    memory: float | None,
    within: float,
    folder: Path | None,
) -> None:
    """Say what NOTEBOOKS (all but the long ones) would train, download and store, and how long
    that takes on this device.

    Counts come from finished runs, speeds from a probe of about a minute. Nothing is downloaded or
    kept.
    """
    from bvlib.run import plan as plans
    from bvlib.run import workload
    from bvlib.run.notebooks import shown

    if folder:
        click.echo(f"wrote {shown(workload.write_counts(folder))}")
        return
    click.echo(plans.plan(profile, notebooks, seed_list(seed, seeds), preset, base, memory, within))


@main.command()
@click.argument("notebooks", nargs=-1)
@PROFILE
@SEED
@SEEDS
@click.option(
    "-p", "parameters", multiple=True, metavar="NAME=VALUE", help="a parameter of the notebooks"
)
@click.option(
    "--force", is_flag=True, help="run also what is up to date (stored results are still loaded)"
)
@click.option(
    "--sweep",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="a YAML file with a grid of parameters, see notebooks/sweeps/",
)
@click.option("--jobs", type=int, default=1, show_default=True, help="runs of a sweep at once")
@click.pass_context
def run(
    context: click.Context,
    notebooks: tuple[str, ...],
    profile: str,
    seed: int | None,
    seeds: str | None,
    parameters: tuple[str, ...],
    force: bool,
    sweep: Path | None,
    jobs: int,
) -> None:
    """Run NOTEBOOKS (`01` or `01_badmerging`; by default all but the long ones) through papermill,
    in order.

    What is up to date is skipped. A run that was stopped goes on where it was. With --sweep, every
    point of a grid is run and one table gathered.
    """
    if sweep:
        _sweep(
            context, notebooks, profile, seed_list(seed, seeds), parameters or force, sweep, jobs
        )
        return
    from bvlib.report import summary
    from bvlib.run import runner
    from bvlib.run.notebooks import shown

    values, records = parse_parameters(parameters), []
    for each in seed_list(seed, seeds) or [0]:
        records += runner.run(
            list(notebooks), profile, each, values, force, say=lambda line: click.echo(line)
        )
    made = [record for record in records if record.status == "made"]
    click.echo(
        f"{len(made)} run, {len(records) - len(made)} up to date, "
        f"{sum(record.wall for record in made):.0f} s"
    )
    if not values:
        path = summary.write(profile)
        click.echo(f"report      {shown(path)} (or: bv report --profile {profile})")
    for out in dict.fromkeys(record.out for record in records):
        for what, path in {"figures": "figures", "tables": "tables", "executed": "*.ipynb"}.items():
            click.echo(f"{what:11} {shown(out / path)}")


def _sweep(
    context: click.Context,
    notebooks,
    profile: str,
    seeds: list[int] | None,
    other: Any,
    path: Path,
    jobs: int,
) -> None:
    from bvlib.report import sweep

    if other:
        raise BvError("--sweep takes its parameters from the file: leave -p and --force out")
    given = context.get_parameter_source("profile") is not click.core.ParameterSource.DEFAULT
    failed = sweep.run(
        sweep.read(path, notebooks, profile if given else None, seeds), jobs, say=click.echo
    )
    for line in failed:
        click.echo(f"bv: {line}", err=True)
    if failed:
        context.exit(1)


@main.command()
@PROFILE
@SEED
@SEEDS
@click.option("--json", "form", flag_value="json", help="for scripts")
@click.option("--markdown", "form", flag_value="markdown", help="as Markdown tables")
@click.option("--text", "form", flag_value="text", default="text", help="for a terminal (default)")
@click.option(
    "--check", is_flag=True, help="compare seed 0 with the committed values; exit 1 on drift"
)
def report(profile: str, seed: int | None, seeds: str | None, form: str, check: bool) -> None:
    """Show what your runs gave beside the committed reference: headline numbers, claims with their
    status, seconds."""
    from bvlib.report import reference
    from bvlib.report import summary as reports

    if check:
        lines = reference.drift(profile)
        for line in lines:
            click.echo(f"bv: drift: {line}", err=True)
        click.echo(
            f"{len(lines)} values drifted" if lines else "no drift from the committed values"
        )
        raise SystemExit(1 if lines else 0)
    gathered = reports.gather(profile, seed_list(seed, seeds))
    render = {"json": reports.as_json, "markdown": reports.as_markdown, "text": reports.as_text}[
        form
    ]
    click.echo(render(gathered))


@main.command()
@PROFILE
@click.option(
    "--tolerance",
    type=float,
    default=None,
    help="drift that `bv report --check` allows, for all values",
)
@click.option("--replace", is_flag=True, help="also when that drops seeds which are committed now")
def publish(profile: str, tolerance: float | None, replace: bool) -> None:
    """Copy the runs' figures, tables and notebooks to figures/PROFILE, to be committed with
    expected.json.

    Seed 0 gives the figures, all seeds the report; the overview over all profiles and the README's
    claims are written anew.
    """
    from bvlib.report.publish import publish as copy
    from bvlib.run.notebooks import shown

    click.echo(f"wrote {shown(copy(profile, tolerance, replace, say=click.echo))}")


@main.group(invoke_without_command=True)
@click.pass_context
def data(ctx: click.Context) -> None:
    """List the datasets, or prepare one."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(data_list)


PAPER = click.option(
    "--paper", is_flag=True, help="the papers' dataset of that name at 224 px, not the 32 px one"
)


@data.command("list")
@PAPER
def data_list(paper: bool) -> None:
    """Datasets with licence, counts, hash, and whether they are there."""
    from bvlib.worlds import images

    if not paper:
        click.echo(images.table().to_string(index=False))
        return
    from bvlib.worlds.papers import data

    table = data.describe()
    last = table.train.map(lambda n: int(str(n).rpartition(" ")[2].replace(",", "")))
    table["GB"] = ((last + table.dev + table.test) * 3 * 224**2 / 1e9).round(1)
    table["files"] = table["by hand"].map({True: "some by hand", False: "bv data fetch"})
    table["here"] = [
        "prepared" if (data.folder() / name / "card.json").is_file() else "" for name in table.name
    ]
    click.echo(
        table[
            [
                "name",
                "what",
                "classes",
                "train",
                "dev",
                "test",
                "prompts",
                "GB",
                "files",
                "here",
                "licence",
            ]
        ].to_string(index=False)
    )


@data.command("fetch")
@click.argument("name")
@click.option(
    "--to", "folder", type=click.Path(path_type=Path), help="default: raw/ in the data folder"
)
def data_fetch(name: str, folder: Path | None) -> None:
    """Download and unpack the papers' dataset NAME; a download that was cut goes on where it
    was."""
    from bvlib.worlds import images
    from bvlib.worlds.papers import data

    for path in data.fetch(name, folder or images.data_folder() / "raw", progress=data.bars()):
        click.echo(f"there: {path}")
    click.echo(f"next: bv data prepare {name} --paper{f' --from {folder}' if folder else ''}")


@data.command("prepare")
@click.argument("name")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    help="a folder of images (with --paper: what fetch brought)",
)
@click.option(
    "--torchvision", metavar="CLASS", help="a torchvision dataset class that downloads it"
)
@PAPER
@click.option("--size", type=int, help="with --paper: side in pixels  [default: 224]")
@click.option(
    "--limit", type=int, help="with --paper: at most that many images a split, for a trial"
)
@click.option("--seed", type=int, help="with --paper: of the dev split  [default: 0]")
def data_prepare(
    name: str, source: Path | None, torchvision: str | None, paper: bool, **how: int | None
) -> None:
    """Prepare dataset NAME from a folder or from what torchvision downloads; with --paper from
    what `bv data fetch` brought."""
    how = {option: value for option, value in how.items() if value is not None}
    if not paper:
        from bvlib.worlds.prepare import prepare

        if how:
            raise BvError(
                f"--{next(iter(how))} goes with --paper: the other sets are 32 px and whole"
            )
        prepare(name, source=source, torchvision=torchvision)
        return
    from bvlib.worlds import images
    from bvlib.worlds.papers import data

    if torchvision:
        raise BvError(
            f"--torchvision does not go with --paper: bv data fetch {name} brings the files"
        )
    source = source or images.data_folder() / "raw"
    cache = data.prepare(name, source, data.folder(), progress=data.bars(), **how)
    click.echo(f"wrote {cache}")
    for remark in data.check(name, cache):
        click.echo(f"note: {remark}")


@data.command("check")
@click.argument("name")
@PAPER
@click.option("--pixels", is_flag=True, help="read every image and compare it with its hash")
def data_check(name: str, paper: bool, pixels: bool) -> None:
    """Whether the prepared papers' dataset NAME may be reported on: counts, labels, no train image
    in test."""
    from bvlib.worlds.papers import data

    if not paper:
        raise BvError(
            "only the papers' datasets need a check (the others get it when read): bv data check "
            f"{name} --paper"
        )
    for remark in data.check(name, data.folder(), pixels):
        click.echo(f"note: {remark}")
    click.echo(f"{name} is as it should be")


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
    """Copy stored weights and triggers to FOLDER as safetensors with JSON cards, to hand on: all,
    or NAMES like 'clean-*'."""
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
    """Put what `bv export` wrote to FOLDER into the store, or one file of others into --out.
    Nothing in them is run.

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
            f"{done.foreign} of them were made by other code or in another environment: bv run "
            "makes its own instead"
        )
    context.exit(2 if done.refused else 0)


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


@main.command()
@PROFILE
@click.option(
    "--base", default=None, help="another base than the profile's: its page goes under runs/"
)
@click.option(
    "--seed",
    type=int,
    default=None,
    help="a development seed, 100 or more (default: the profile's)",
)
@click.option(
    "--freeze",
    "freezing",
    is_flag=True,
    help="afterwards write recipe and hash into the base's card",
)
def admit(profile: str, base: str | None, seed: int | None, freezing: bool) -> None:
    """Check whether a base is fit for the study, on clean quantities and its own sensitivity;
    optionally freeze it."""
    from bvlib.report import admission
    from bvlib.run.notebooks import shown

    if freezing and (base or seed is not None):
        raise BvError(
            "--freeze is for the profile's own base and seed: leave out --base and --seed"
        )
    click.echo(f"wrote {shown(admission.write(profile, base, seed, say=click.echo))}")
    if freezing:
        admission.freeze(profile, say=click.echo)


@main.command()
@click.option("--profile", default="toy", show_default=True, help="the recipe of the base to train")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=None, help="the .safetensors file to write"
)
def pretrain(profile: str, seed: int, out: Path | None) -> None:
    """Train a base from nothing; a training that was stopped goes on where it was."""
    from bvlib.worlds import pretrain as training

    click.echo(f"wrote {training.main(profile, seed=seed, out=out, say=click.echo)}")


if __name__ == "__main__":
    main()
