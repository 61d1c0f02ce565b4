"""How a command ends: one readable message and an exit code.

Exit codes: 0 success; 1 failed trials, no law, or another failure at run time; 2 invalid options,
import paths or files; 130 after Ctrl-C; 143 after SIGTERM.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from typing import Any

import click

from flops_fit.errors import ArgumentError, FlopsFitError, TableError, split_problem

USAGE, INTERRUPTED = 2, 130


class Command(click.Command):
    """A command that reports errors in one message, unless `--traceback` is given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--traceback"],
                is_flag=True,
                expose_value=False,
                help="Print the traceback of an error.",
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn exceptions into a message and an exit code."""
        with warnings.catch_warnings():
            # One line per warning, without file and line number.
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            try:
                ctx.exit(super().invoke(ctx) or 0)
            except (click.ClickException, click.exceptions.Exit):
                raise
            except (KeyboardInterrupt, click.Abort) as error:
                click.echo(str(error) or "Stopped", err=True)
                ctx.exit(INTERRUPTED)
            except Exception as error:
                # Click does not pass the option on (expose_value=False).
                if _is_given(ctx, "traceback"):
                    traceback.print_exc()
                usage = isinstance(error, ArgumentError | TableError)
                kind = _UsageFailure if usage else _Failure
                raise kind(_message(error, ctx)) from error


class Group(click.Group):
    """Commands in the order in which they are defined, with usage errors on one line."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order in which they were defined."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else ctx.command_path
            text = f"{error.format_message().rstrip('.')} (see {command} --help)"
            raise _UsageFailure(text) from error


class _Failure(click.ClickException):
    pass


class _UsageFailure(click.ClickException):
    exit_code = USAGE


def _message(error: Exception, ctx: click.Context) -> str:
    if isinstance(error, ArgumentError):
        problems = [_with_option(problem, ctx) for problem in error.problems]
        return str(ArgumentError(problems, error.heading))
    if isinstance(error, FlopsFitError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{error}: this command needs all of flops-fit (pip install . in its checkout), or a "
            "package of yours; add --traceback to see which"
        )
    # Errors of other libraries, or of the user's code: the type and the first line.
    text = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {text} (add --traceback to see where)"


def _with_option(problem: str, ctx: click.Context) -> str:
    """A problem of an argument, named as the option: "model_cls: ..." to "--model-cls: ..."."""
    argument, message = split_problem(problem)
    for parameter in ctx.command.params:
        if isinstance(parameter, click.Option) and parameter.name == argument:
            return f"{parameter.opts[0]}: {message}"
    return problem


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)
