"""The assembled command; each subcommand is imported when used, because JAX takes seconds to import."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import facts, help_pages, terminal


class _Commands(Mapping[str, Any]):
    """The commands by name, each loaded on demand."""

    def __getitem__(self, name: str) -> Any:
        if name not in facts.COMMANDS:
            raise KeyError(name)
        return facts.loaded(name)

    def __contains__(self, name: object) -> bool:
        return name in facts.COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(facts.COMMANDS)

    def __len__(self) -> int:
        return len(facts.COMMANDS)


class Group(TyperGroup):
    """The group of commands, whose help is read from the stored facts."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands: Any = _Commands()

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command, unless only its help is requested."""
        if (name := help_pages.asked(args)) is not None:
            for line in help_pages.shown(name, ctx.make_formatter()).splitlines():
                terminal.say(line)
            ctx.exit()
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        known = facts.read()["commands"]
        with formatter.section("Commands"):
            formatter.write_dl([(name, known[name]["help"]) for name in facts.COMMANDS])


app = typer.Typer(
    name="jaxai",
    cls=Group,
    help="Explain what image networks see.",
    epilog="jaxai COMMAND --help says more; jaxai explain cat is a start.",
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool | None) -> None:
    if asked:
        from .. import __version__

        terminal.say(f"jaxai {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop."),
    ] = None,
) -> None:
    """Explain what image networks see."""
