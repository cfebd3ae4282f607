"""The command line: a file per verb, which parses, calls and prints."""

import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import typer

from diffnas.cli.compress import compress
from diffnas.cli.demo import demo
from diffnas.cli.evaluate import evaluate
from diffnas.cli.export import export
from diffnas.cli.failures import FAILURE, MISTAKE, explain
from diffnas.cli.front import front
from diffnas.cli.plan import plan
from diffnas.cli.quiet import hush
from diffnas.cli.report import report
from diffnas.cli.sample import sample
from diffnas.errors import INTERRUPTED

_USAGE_ERROR: Any = typer.BadParameter.__base__
"""The usage error of the click that this typer uses: newer ones carry their own."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
VERBS = {
    verb.__name__: verb for verb in (demo, compress, plan, front, evaluate, sample, export, report)
}
for verb in VERBS.values():
    app.command()(verb)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"diffnas {installed_version('diffnas')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error comes from; goes with every verb.")
    ] = False,
) -> None:
    """Make pretrained diffusion models smaller and faster by block-wise architecture search."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0, 2 for a user's mistake, 1 for a failure.

    Errors are one line on stderr; ``--debug`` or DIFFNAS_DEBUG=1 lets tracebacks through.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given or os.environ.get("DIFFNAS_DEBUG") == "1"
    given = [argument for argument in given if argument != "--debug"]
    if not debug:
        hush()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A result that took hours is not lost to a character that a terminal does not know.
        sys.stdout.reconfigure(errors="backslashreplace")
    if (empty := _empty(given)) is not None:
        return _fail(f"{empty}: is empty; give a value, or leave it out", MISTAKE)
    try:
        status = typer.main.get_command(app)(
            given or ["--help"], prog_name="diffnas", standalone_mode=False
        )
    except _USAGE_ERROR as error:
        return _fail(_usage(error, given), MISTAKE)
    except BrokenPipeError:
        # The reader of stdout left (diffnas plan ... | head); nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except (KeyboardInterrupt, typer.Abort):
        return _fail(*explain(KeyboardInterrupt()))
    except Exception as error:  # a shell has no use for a traceback, of whatever kind
        # A fault of ours ends in one line too, which asks for a report.
        if debug:
            raise
        return _fail(*explain(error))
    if status == INTERRUPTED:
        # Newer typers turn an interrupt into a status.
        return _fail(*explain(KeyboardInterrupt()))
    return status if isinstance(status, int) else 0


def _empty(given: Sequence[str]) -> str | None:
    """What was given as nothing, by a variable of the shell that is not set, say.

    As a path it would be the present folder. A prompt may be empty.
    """
    for before, word in zip(["", *given], given, strict=False):
        if word == "" and before != "--prompt":
            # Whether the word before takes a value, only its verb knows.
            return f"argument '' after {before}" if before.startswith("--") else "argument ''"
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and equals and not value and flag != "--prompt":
            return f"{flag} ''"
    return None


def _usage(error: Any, given: Sequence[str]) -> str:
    context = error.ctx
    verb = given[0] if given and given[0] in VERBS else ""
    command = context.command_path if context is not None else f"diffnas {verb}".rstrip()
    message = " ".join(error.format_message().split()).rstrip(".")
    joint = " See" if message.endswith("?") else "; see"
    return f"{message}{joint} '{command} --help'"


def _fail(line: str, status: int) -> int:
    print(f"diffnas: {line}", file=sys.stderr)
    return status
