"""The command line: one verb each, results on stdout, everything else on stderr.

`ending` has the exit codes.
The files of this folder import neither torch nor TVM, so that ``--help`` answers at once; `verbs` does the work.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from .compiling import board_server, compile_, estimate, targets
from .ending import INTERRUPTED, explained, failed, unheard
from .exploring import explore
from .mapping import map_, times
from .meaningless import Verb
from .pruning import capture, compact, explain, prune
from .quantizing import quantize
from .renamed import Verbs
from .running import bench, demo, run
from .serving import portfolio, serve, sign
from .terminal import answer
from .training import evaluate, shrink, train, train_levels
from .upkeep import cache_

__all__ = ["app", "main"]

app = typer.Typer(
    name="reconvene",
    cls=Verbs,
    help="A compiler for pruned neural networks: proves which channels can go, removes them exactly, and compiles"
    " what is left.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        print(f"reconvene {metadata.version('reconvene')}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of every error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version, and end.")
    ] = False,
) -> None:
    """Options that stand anywhere on the line; `main` has read them."""


_VERBS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("capture", capture),
    ("prune", prune),
    ("compact", compact),
    ("train", train),
    ("train-levels", train_levels),
    ("shrink", shrink),
    ("explore", explore),
    ("evaluate", evaluate),
    ("quantize", quantize),
    ("compile", compile_),
    ("portfolio", portfolio),
    ("run", run),
    ("bench", bench),
    ("serve", serve),
    ("sign", sign),
    ("board-server", board_server),
    ("estimate", estimate),
    ("times", times),
    ("map", map_),
    ("explain", explain),
    ("targets", targets),
    ("cache", cache_),
    ("demo", demo),
)
"""In the order of the help."""

for _name, _verb in _VERBS:
    app.command(_name, cls=Verb)(_verb)


def main(arguments: Sequence[str]) -> int:
    """Runs the command line with `arguments` (without the program's name) and returns the exit code."""
    debug = "--debug" in arguments
    if not debug:
        # torch and TVM warn about their own insides; nobody at the keyboard can act on that.
        warnings.simplefilter("ignore")
    try:
        line = [item for item in arguments if item != "--debug"] or ["--help"]
        done = app(line, prog_name="reconvene", standalone_mode=False)
        # typer turns Ctrl-C into an exit code, of some versions only.
        return failed("interrupted", INTERRUPTED) if done == INTERRUPTED else done if isinstance(done, int) else 0
    except (typer.Abort, KeyboardInterrupt):
        return failed("interrupted", INTERRUPTED)
    except SystemExit as ending:
        if (
            type(sys.stdout).__name__ != "PacifyFlushWrapper"
        ):  # What typer puts there when nobody reads its help any more.
            raise
        unheard(1)
        return 0 if ending.code == 1 else 2
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and not _in_a_verb(error):
            unheard(1)
            return failed(f"cannot write to stdout: {error.strerror or error}", 2)
        return explained(error)


def _in_a_verb(error: BaseException) -> bool:
    """Whether a verb was at work. Else only help is written, and nothing read."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code is answer.__code__ for frame, _ in frames)
