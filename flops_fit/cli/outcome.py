"""How a command ends: one readable message, and an exit code that scripts can go by.

0 all is well; 1 trials failed, or it could not be done; 2 what was asked for cannot work (options,
import paths, files); 130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from typing import Any

import click

from flops_fit.errors import ArgumentError, FlopsFitError

USAGE, INTERRUPTED = 2, 130
_KEY_OF = {
    "model_cls": "model",
    "model_size_param": "size_param",
    "model_kwargs": "model_args",
    "dataset": "data",
    "eval_dataset": "eval_data",
    "loss_fn": "loss",
    "compute_budgets": "budgets",
}
_ARGUMENT = re.compile(rf"^(\s*(?:- )?)({'|'.join(_KEY_OF)})(?=:)", re.MULTILINE)
_KEYWORD = re.compile(
    r"\b(name|tracking_uri|storage|workers|sizes|retry_failed|on_code_change)="
    r"(?:(True)|\"(\w+)\"|(?=[\s,;.)]))"
)


class Command(click.Command):
    """A command whose errors are one message, unless `--traceback` is given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        says = "Show where an error was raised."
        self.params.append(
            click.Option(["--traceback"], is_flag=True, expose_value=False, help=says)
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what it raises becomes a message and an exit code."""
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            try:
                ctx.exit(super().invoke(ctx) or 0)
            except (click.ClickException, click.exceptions.Exit):
                raise
            except (KeyboardInterrupt, click.Abort) as error:
                click.echo(in_words(str(error)) or "Stopped", err=True)
                ctx.exit(INTERRUPTED)
            except Exception as error:
                if _is_given(ctx, "traceback"):
                    traceback.print_exc()
                kind = _Misuse if isinstance(error, ArgumentError) else _Failure
                raise kind(_message(error)) from error


class Group(click.Group):
    """Commands that are listed in order, and whose usage errors take one line."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were defined."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            asked = error.ctx.command_path if error.ctx else ctx.command_path
            text = f"{error.format_message().rstrip('.')} ({asked} --help shows how)"
            raise _Misuse(text) from error


class _Failure(click.ClickException):
    pass


class _Misuse(click.ClickException):
    exit_code = USAGE


def in_words(text: str) -> str:
    """A message of the library in the command line's words."""
    text = text.replace("call find_optimal(...) again", "run the same command again")
    text = text.replace("sizes=[...]", "--sizes ...")
    text = text.replace("another tracking_uri", "another --tracking-uri")
    text = re.sub(r"\bRecipe\((\w+)=([^()]+)\)", r"--recipe \1=\2", text)
    text = _ARGUMENT.sub(lambda found: found[1] + _KEY_OF[found[2]], text)
    return _KEYWORD.sub(_as_option, text)


def _as_option(found: re.Match[str]) -> str:
    option = f"--{found[1].replace('_', '-')}"
    return f"{option} {found[3]}" if found[3] else option


def _message(error: Exception) -> str:
    if isinstance(error, FlopsFitError):
        return in_words(str(error))
    text = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {text} (--traceback shows where)"


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {in_words(str(message))}", file=sys.stderr)
