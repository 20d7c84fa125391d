"""bv list, plan, run, report, publish, golden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bvlib.cli.main import (
    PLUGIN,
    PROFILE,
    SEED,
    SEEDS,
    main,
    parse_parameters,
    seed_list,
    use_plugins,
)
from bvlib.core.errors import BvError


@main.command("list")
@click.argument("notebook", required=False)
@PLUGIN
def list_(notebook: str | None, plugins: tuple[Path, ...]) -> None:
    """List notebooks, profiles, tasks, attacks, merging methods, defences and claims; with a
    NOTEBOOK, its parameters."""
    from bvlib.attacks import sbv, triggers  # noqa: F401
    from bvlib.core.registry import REGISTRIES
    from bvlib.report import claims
    from bvlib.run import settings
    from bvlib.run.notebooks import every, find
    from bvlib.worlds import tasks

    use_plugins(plugins)
    if notebook:
        for item in find([notebook]):
            click.echo(f"{item.name}: {item.title}")
            for p in item.parameters.values():
                tail = f"  # {p.help}" if p.help else ""
                click.echo(f"  {p.name}: {p.type or 'any'} = {p.default!r}{tail}")
                for line in settings.described(p.name):
                    click.echo(f"    {line}")
        return
    click.echo("notebooks (bv list 01 shows the parameters of one)")
    for item in every():
        click.echo(
            f"  {item.name:28} {item.title}{' (long: runs by name only)' if item.long else ''}"
        )
    click.echo("profiles")
    for name in settings.names():
        click.echo(f"  {name:28} {settings.load(name).get('about', '')}".rstrip())
    click.echo(f"tasks\n  {', '.join(tasks.known())}\nplaces\n  {', '.join(triggers.PLACES)}")
    for registry in REGISTRIES:
        click.echo(f"{registry.title}s")
        for method in registry.values():
            needs = "" if method.needs == "nothing" else f" (needs {method.needs})"
            click.echo(f"  {method.name:28} {method.what}{needs}")
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
    "--memory",
    type=click.FloatRange(0, min_open=True),
    metavar="GB",
    help="does it fit a card of so much memory?",
)
@click.option(
    "--probe",
    "within",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="to measure this device",
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
) -> None:
    """Say what NOTEBOOKS (all but the long ones) would train and store, and how long that takes on
    this device.

    Counts come from finished runs, speeds from a probe of about a minute. Nothing is downloaded or
    kept.
    """
    from bvlib.run import plan as plans

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
@PLUGIN
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
    plugins: tuple[Path, ...],
) -> None:
    """Run NOTEBOOKS (`01` or `01_badmerging`; by default all but the long ones) through papermill,
    in order.

    What is up to date is skipped. A run that was stopped goes on where it was. With --sweep, every
    point of a grid is run and one table gathered.
    """
    if plugins:
        use_plugins(plugins)
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
@click.option("--reference", is_flag=True, help="only the committed runs, without your own")
def report(
    profile: str, seed: int | None, seeds: str | None, form: str, check: bool, reference: bool
) -> None:
    """Show what your runs gave beside the committed reference: headline numbers, claims with their
    status, seconds."""
    from bvlib.report import summary as reports
    from bvlib.report.reference import drift

    if check and reference:
        raise BvError("--check compares your own runs: leave --reference out")
    if check:
        lines = drift(profile)
        for line in lines:
            click.echo(f"bv: drift: {line}", err=True)
        click.echo(
            f"{len(lines)} values drifted" if lines else "no drift from the committed values"
        )
        raise SystemExit(1 if lines else 0)
    gather = reports.gather_committed if reference else reports.gather
    gathered = gather(profile, seed_list(seed, seeds))
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


@main.command()
@click.argument("profiles", nargs=-1)
@click.option(
    "--check", is_flag=True, help="exit 1 if a value differs from the golden one (default)"
)
@click.option(
    "--write", is_flag=True, help="write the values anew; refused at an unchanged recipe version"
)
def golden(profiles: tuple[str, ...], check: bool, write: bool) -> None:
    """Run all notebooks of PROFILES (smoke) cold, on one thread; compare with the golden values.

    What differs first is named first, and by how much. smoke32 needs the real
    images of BVLIB_DATA.
    """
    from bvlib.report import golden as values

    lines = []
    for profile in profiles or values.PROFILES[:1]:
        found = values.run(profile, say=click.echo)
        if write:
            click.echo(f"wrote {values.write(values.folder(), profile, found)}")
            continue
        differ = values.compare(values.read(values.folder(), profile), found)
        click.echo(
            f"{profile}: {len(differ)} of {len(found['artefacts']) + len(found['tables'])} differ"
        )
        lines += [f"{profile}: {line}" for line in differ]
    for line in lines:
        click.echo(f"bv: {line}", err=True)
    raise SystemExit(1 if lines else 0)
