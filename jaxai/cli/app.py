"""The command's parts put together."""

import typer

from .. import __version__
from . import listing, terminal
from .atlas import atlas
from .compare import compare
from .convert import convert
from .dataset import dataset
from .dream import dream
from .explain import explain
from .method_pages import methods
from .visualize import visualize

app = typer.Typer(
    name="jaxai",
    help="Explain what image networks see.",
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        terminal.say(f"jaxai {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and stop."
    ),
) -> None:
    """Explain what image networks see."""


for command in (
    explain,
    compare,
    dream,
    visualize,
    atlas,
    listing.models,
    listing.layers,
    methods,
    convert,
    listing.fetch,
):
    app.command()(command)
app.add_typer(dataset)
