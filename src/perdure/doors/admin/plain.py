"""What the operator's commands share: an option, and how they end when one of our errors ends them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click

from perdure.kernel.errors import PerdureError

Parameters = ParamSpec("Parameters")
data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Folder of all data; PERDURE_DATA_DIR."
)


def plainly(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Let a command end with what happened, the next step and the error's exit code."""

    @wraps(command)
    def run(*args: Parameters.args, **options: Parameters.kwargs) -> None:
        with speaking_plainly():
            command(*args, **options)

    return run


@contextmanager
def speaking_plainly() -> Iterator[None]:
    try:
        yield
    except PerdureError as error:
        click.echo(f"{error.title}: {error.detail}\n{error.next_step}", err=True)
        sys.exit(error.exit_code)
