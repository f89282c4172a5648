"""The command line: ``visreg train``, ``test``, ``check``, ``explain``, ``list`` and ``new-plugin``.

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
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visreg import __version__, dist
from visreg.errors import ConfigError, NotFiniteError, Problem, ResourceError, VisregError, module_of, out_of_memory
from visreg.log import log_to_file, log_to_stdout
from visreg.run_lock import RunLock
from visreg.signals import Left, Signals

if TYPE_CHECKING:
    from visreg.config import Config
    from visreg.runner import Runner

logger = logging.getLogger("visreg")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that ``arguments``, by default the process's own, describe, and exit with its code."""
    options = _parser().parse_args(_set_last(sys.argv[1:] if arguments is None else arguments))
    if getattr(options, "data_root", None):
        os.environ["VISREG_DATA"] = options.data_root
    log_to_stdout()
    try:
        code = options.run(options)
        if (error := _give_up_stdout()) is not None:
            raise error
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
        lost = _give_up_stdout() is not None
        if error.errno == errno.ENOSPC:
            code = _report(ResourceError(f"{error}; free some space"))
        elif lost and isinstance(error, BrokenPipeError):
            code = 0  # it is `visreg list | head`
        else:
            raise
    finally:
        dist.leave()
    sys.exit(code)


def _give_up_stdout() -> OSError | None:
    """Return what is wrong with stdout, if it takes no more; Python would fail once more at exit, when it flushes."""
    if sys.stdout is None:  # after `>&-`
        return None
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


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


def _set_last(arguments: Sequence[str]) -> list[str]:
    """Return ``arguments`` with each ``--set`` and its values behind all others: so it takes no CONFIG for a value.

    >>> _set_last(["train", "--set", "run.epochs=1", "run.seed=2", "cnn.py", "--resume"])
    ['train', 'cnn.py', '--resume', '--set', 'run.epochs=1', 'run.seed=2']
    """
    if "--" in arguments:
        return list(arguments)
    others: list[str] = []
    settings: list[str] = []
    before, taken = "", False
    for argument in arguments:
        taken = "--set" in (argument, before) or (taken and "=" in argument and not argument.startswith("-"))
        (settings if taken else others).append(argument)
        before = argument
    return others + settings


def _train(options: argparse.Namespace) -> int:
    from visreg.bad_batch import bad_batch_explained

    with Signals() as signals, ExitStack() as held:
        runner = signals.leavable(lambda: _prepared(options, held))
        runner.signals = signals
        logger.info("training on %s; what is kept of it goes to %s", runner.device, runner.work_dir)
        try:
            with _out_of_memory_explained(), bad_batch_explained(runner):
                runner.train()
        finally:
            signals.tell()
        number = runner.interrupted or signals.received
        if number:
            rest = "--resume goes on from there" if runner.step else "there is nothing yet to resume"
            logger.info("interrupted at step %d of %d; %s", runner.step, runner.total_steps, rest)
        _give_up_stdout()  # nobody need listen
        return 128 + number if number else 0


def _prepared(options: argparse.Namespace, held: ExitStack) -> Runner:
    """Return the runner, at the step it is to begin at; ``held`` is what the process must hold while it trains."""
    from visreg import generators
    from visreg.build import build_runner
    from visreg.config import dump

    config = _load(options)
    try:
        runner = build_runner(config, options.plugin)
    except VisregError as error:
        if not dist.agree_to_begin(error):
            raise SystemExit(error.exit_code) from error
        raise
    dist.agree_to_begin(None)
    if dist.is_main():
        held.enter_context(RunLock(runner.work_dir))
        log_to_file(runner.work_dir / "log.txt")
    generators.seed_others(config.values["run"].get("seed", 0) + dist.rank())
    if options.resume is not None or options.resume_override:
        _resume(runner, _given(Path(options.resume)) if options.resume else None, options.resume_override)
    if dist.is_main():
        dump(config.values, runner.work_dir / "config.json")  # not before: a config can be refused
    return runner


def _given(path: Path) -> dict[str, Any] | None:
    """Return the checkpoint that a path names, or the newest one where it is a run's folder."""
    from visreg.checkpoint import load, resume

    return resume(path / "checkpoints") if (path / "checkpoints").is_dir() else load(path)


def _resume(runner: Runner, state: dict[str, Any] | None, override: bool) -> None:
    from visreg.checkpoint import resume
    from visreg.resume import check_config, restore_environment

    state = state or resume(runner.work_dir / "checkpoints")
    if state is None:
        logger.warning("nothing to resume in %s; starting from the beginning", runner.work_dir)
        return
    check_config(state, runner.config, override)
    runner.load_state_dict(state, override=override)
    restore_environment(state.get("environment", {}), runner.device)
    logger.info("resumed at step %d of %d (epoch %d)", runner.step, runner.total_steps, runner.epoch)
    if runner.finished:
        logger.info("nothing is left to do; raise run.epochs or run.steps to go on")


def _test(options: argparse.Namespace) -> int:
    from visreg.evaluate import evaluate_checkpoint, print_scores, write_scores

    if len(options.paths) > 2:
        raise VisregError(f"test takes [CONFIG] CHECKPOINT, got {len(options.paths)} paths")
    *configs, checkpoint = options.paths
    options.config = configs[0] if configs else None
    config = _load(options) if configs else None
    with _out_of_memory_explained():
        result = evaluate_checkpoint(Path(checkpoint), config, options.split, options.set, options.plugin)
    if dist.is_main():
        print_scores(result)
        write_scores(result, Path(options.out) if options.out else None)
    return 0


def _check(options: argparse.Namespace) -> int:
    from visreg.check import check_config

    config = _load(options)
    check_config(config, plugin_files=options.plugin)
    print(f"{options.config}: no mistakes found", flush=True)
    if not options.data:
        return 0
    from visreg.data_check import check_data, report
    from visreg.errors import DataError

    count = report(check_data(config, options.plugin, options.workers), Path(options.out) if options.out else None)
    if count:
        raise DataError(f"{count} thing{'s' * (count > 1)} wrong with the data; nothing was changed")
    print("every sample of every split can be used")
    return 0


def _explain(options: argparse.Namespace) -> int:
    from visreg.config import explain, parse_path

    print(explain(_load(options), parse_path(options.key)))
    return 0


def _list(options: argparse.Namespace) -> int:
    from visreg.listing import show

    for file in options.plugin:
        from visreg.registry import load_file

        load_file(file)
    show(options.kind, options.name)
    return 0


def _new_plugin(options: argparse.Namespace) -> int:
    from visreg.new_plugin import write_plugin

    folder = write_plugin(options.name, Path(options.folder))
    print(f"wrote {folder}; next: pip install -e '{folder}[dev]' && python -m pytest {folder}")
    return 0


def _load(options: argparse.Namespace) -> Config:
    from visreg.config import load_config

    overrides = list(options.set)
    if getattr(options, "work_dir", None):
        overrides.append(f"run.work_dir={options.work_dir!r}")
    return load_config(options.config, overrides)


class _out_of_memory_explained:  # noqa: N801  used as a statement, like contextlib's own
    """Turns running out of memory, or of deterministic algorithms, into an error that says what to do."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        first = str(error).splitlines()[0] if str(error) else "out of memory"
        if out_of_memory(error):
            raise ResourceError(f"{first}; lower train.batch_size, or raise run.accumulate") from error
        operation, found, _ = first.partition(" does not have a deterministic implementation")
        if isinstance(error, RuntimeError) and found:
            place = module_of(error) or "a backward pass, a loss or a transform"
            message = f"{operation}, in {place}, has no deterministic algorithm; set it to False, or use another layer"
            raise ConfigError([Problem("run.deterministic", message)]) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="visreg", description="Train what a plain-dict config describes.")
    parser.add_argument("--version", action="version", version=f"visreg {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    train = commands.add_parser("train", help="train what a config describes", description=_train_help)
    train.add_argument("config", metavar="CONFIG", help="a .py or .json file")
    train.add_argument(
        "--resume", nargs="?", const="", metavar="CHECKPOINT", help="go on from it, by default from the run's newest"
    )
    train.add_argument(
        "--resume-override",
        action="store_true",
        help="resume though the config was changed: data, optimizer options and schedule are then the config's",
    )
    train.add_argument("--work-dir", metavar="DIR", help="the run's folder; short for --set run.work_dir=DIR")
    _add_common(train, data=True)
    train.set_defaults(run=_train)

    test = commands.add_parser("test", help="evaluate a checkpoint", description=_test_help)
    test.add_argument("paths", nargs="+", metavar="[CONFIG] CHECKPOINT", help="a checkpoint carries its config")
    test.add_argument("--split", choices=("val", "test"), help="by default test if the config has it, else val")
    test.add_argument(
        "--out", metavar="FILE", help="where to write the scores; by default test.json in the run's folder"
    )
    _add_common(test, data=True)
    test.set_defaults(run=_test)

    check = commands.add_parser(
        "check", help="list every mistake in a config", description="List every mistake at once."
    )
    check.add_argument("config", metavar="CONFIG")
    check.add_argument("--data", action="store_true", help="read every sample too, and list what is wrong with them")
    check.add_argument("--workers", type=_count, metavar="N", help="processes that read; by default one for each core")
    check.add_argument("--out", metavar="FILE", help="where to write all that is wrong with the data")
    _add_common(check, data=True)
    check.set_defaults(run=_check)

    explain = commands.add_parser("explain", help="say where a config's value comes from", description=_explain_help)
    explain.add_argument("config", metavar="CONFIG")
    explain.add_argument("key", metavar="KEY", help="such as optimizer.lr or hooks[0].patience")
    _add_common(explain)
    explain.set_defaults(run=_explain)

    listing = commands.add_parser("list", help="show what is registered", description=_list_help)
    listing.add_argument("kind", nargs="?", metavar="KIND", help="such as models or hooks")
    listing.add_argument("name", nargs="?", metavar="NAME", help="such as resnet18")
    listing.add_argument("--plugin", type=Path, action="append", default=[], metavar="FILE", help="run this file first")
    listing.set_defaults(run=_list)

    new = commands.add_parser("new-plugin", help="write a plugin package to start from", description=_new_help)
    new.add_argument("name", metavar="NAME", help="of the package, such as visreg-mynet")
    new.add_argument("--folder", default=".", metavar="DIR", help="where to put it")
    new.set_defaults(run=_new_plugin)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return int(text)


def _add_common(parser: argparse.ArgumentParser, *, data: bool = False) -> None:
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="such as optimizer.lr=0.01 hooks.0.patience=3",
    )
    parser.add_argument(
        "--plugin", type=Path, action="append", default=[], metavar="FILE", help="a .py file that registers components"
    )
    if data:
        parser.add_argument(
            "--data-root", metavar="DIR", help="where datasets are; $VISREG_DATA, else data/, by default"
        )


_train_help = """Train what a config describes. The run's folder (run.work_dir) then holds config.json, log.txt,
metrics.jsonl and checkpoints/. Exit codes: 0 done, 2 config, 3 data, 4 checkpoint, 5 not finite, 6 resources,
7 distributed, 8 plugin, 130 and 143 interrupted, after saving."""
_test_help = "Evaluate a checkpoint, print its scores and write test.json."
_explain_help = "Say which file or flag set a value, and what it overrode."
_list_help = "Show every registered name: where it comes from, its signature and its summary."
_new_help = "Write a package with a model, a hook and tests, ready to pip install -e."

if __name__ == "__main__":
    main()
