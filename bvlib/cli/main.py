"""The group of all commands."""

from typing import Any

import click

from bvlib.cli.options import complain
from bvlib.core.errors import BvError, NotebookFailed
from bvlib.run.notebooks import settle_folders


class Group(click.Group):
    """A group of commands that turns a BvError into one line and exit code 2, an interrupt into
    130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BvError as error:
            complain(error)
            ctx.exit(1 if isinstance(error, NotebookFailed) else 2)
        except KeyboardInterrupt:
            complain("stopped; what was computed is kept, the same command goes on from there")
            ctx.exit(130)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Backdoors in model merging: Backdoor Vectors and BadMerging, reproduced."""
    settle_folders()
