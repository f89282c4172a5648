"""The command line: runs a command, and turns what ends it into one message and an exit code.

Nothing here imports torch before a command needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from visreg import dist
from visreg.arguments import make_parser, set_last
from visreg.errors import ConfigError, NotFiniteError, ResourceError, VisregError
from visreg.log import give_up_stdout, log_to_stdout
from visreg.signals import Left


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that ``arguments``, by default the process's own, describe, and exit with its code."""
    log_to_stdout()
    try:
        options = _parsed(sys.argv[1:] if arguments is None else arguments)
        code = options.run(options)
        _end_stdout()
    except VisregError as error:
        code = _report(error)
    except Left as left:
        code = 128 + left.number
        if dist.is_main():
            _complain(str(left))
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
        if dist.is_main():
            _complain("interrupted")
    except OSError as error:
        unread = isinstance(give_up_stdout(), BrokenPipeError)
        if error.errno == errno.ENOSPC:
            code = _report(ResourceError(f"{error}; free some space"))
        elif unread and isinstance(error, BrokenPipeError):
            code = 0  # it is `visreg list | head`
        else:
            raise
    finally:
        dist.leave()
    sys.exit(code)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    try:
        options = make_parser().parse_args(set_last(arguments))
    except SystemExit:  # after --help
        _end_stdout()
        raise
    if getattr(options, "data_root", None):
        os.environ["VISREG_DATA"] = options.data_root
    return options


def _end_stdout() -> None:
    """Make sure that all that was printed is written, unless nobody reads it."""
    if (error := give_up_stdout()) is not None and not isinstance(error, BrokenPipeError):
        raise error


def _complain(message: str) -> None:
    """Print an error where a person, if there still is one, sees it."""
    with suppress(OSError):
        print(message, file=sys.stderr)


def _report(error: VisregError) -> int:
    if isinstance(error, (ConfigError, NotFiniteError)) and not dist.is_main():
        pass  # every process finds the same, and one tells
    elif isinstance(error, ConfigError):
        count = len(error.problems)
        _complain(str(error))
        _complain(f"error: {count} mistake{'s' * (count > 1)} in the config; nothing was run")
    else:
        _complain(f"error: {error}")
    logging.getLogger("visreg.error").error("%s", error)  # for the log file
    return error.exit_code


if __name__ == "__main__":
    main()
