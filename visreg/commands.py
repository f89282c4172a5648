"""What each command of the command line does; nothing here imports torch before a command needs it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from visreg import dist
from visreg.errors import ConfigError, Problem, ResourceError, VisregError, module_of, out_of_memory
from visreg.log import give_up_stdout, log_to_file
from visreg.signals import Signals

if TYPE_CHECKING:
    from visreg.config import Config
    from visreg.runner import Runner

T = TypeVar("T")

logger = logging.getLogger("visreg")


def train(options: argparse.Namespace) -> int:
    """Train what a config describes."""
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
        give_up_stdout()  # nobody need listen
        return 128 + number if number else 0


def _prepared(options: argparse.Namespace, held: ExitStack) -> Runner:
    """Return the runner, at the step it is to begin at; ``held`` is what the process must hold while it trains."""
    from visreg import generators
    from visreg.build import build_runner
    from visreg.config import dump
    from visreg.run_lock import RunLock

    def lock(folder: Path) -> None:  # before the data is read, which can take minutes
        if dist.is_main():
            held.enter_context(RunLock(folder))

    config = _load(options)
    weights = not _goes_on(options, config)
    runner = _agreed(
        lambda: build_runner(
            config, options.plugin, weights=weights, begin=lambda folder: _agreed(lambda: lock(folder))
        )
    )
    if dist.is_main():
        log_to_file(runner.work_dir / "log.txt")
    generators.seed_others(config.values["run"].get("seed", 0) + dist.rank())
    if options.resume is not None or options.resume_override:
        _resume(runner, Path(options.resume) if options.resume else None, options.resume_override)
    if dist.is_main():
        dump(config.values, runner.work_dir / "config.json")  # not before: a config can be refused
    return runner


def _agreed(function: Callable[[], T]) -> T:
    """Return what ``function`` returns; if it fails in one of the processes, none goes on."""
    try:
        found = function()
    except VisregError as error:
        if not dist.agree_to_begin(error):
            raise SystemExit(error.exit_code) from error
        raise
    dist.agree_to_begin(None)
    return found


def _goes_on(options: argparse.Namespace, config: Config) -> bool:
    """Return whether there is a checkpoint to resume, beside which no weights to begin from are needed."""
    from visreg.checkpoint import newest
    from visreg.schema import run_folder

    if options.resume is None and not options.resume_override:
        return False
    run = config.values.get("run")
    work_dir = run.get("work_dir") if isinstance(run, Mapping) else None
    folder = Path(options.resume or run_folder(work_dir if isinstance(work_dir, str) else None, config.file))
    is_file = bool(options.resume) and not (folder / "checkpoints").is_dir()
    return is_file or bool(newest(folder / "checkpoints"))


def _resume(runner: Runner, path: Path | None, override: bool) -> None:
    from visreg.checkpoint import given, resume
    from visreg.resume import check_config, restore_environment

    state = given(path) if path else resume(runner.work_dir / "checkpoints")
    if state is None:
        logger.warning("nothing to resume in %s; starting from the beginning", runner.work_dir)
        return
    check_config(state, runner.config, override)
    runner.load_state_dict(state, override=override)
    restore_environment(state.get("environment", {}), runner.device)
    logger.info("resumed at step %d of %d (epoch %d)", runner.step, runner.total_steps, runner.epoch)
    if runner.finished:
        logger.info("nothing is left to do; raise run.epochs or run.steps to go on")


def test(options: argparse.Namespace) -> int:
    """Evaluate a checkpoint."""
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


def predict(options: argparse.Namespace) -> int:
    """Predict what is in images."""
    from visreg.checkpoint import run_folder
    from visreg.errors import DataError
    from visreg.image_files import find_images
    from visreg.predict import predict_files
    from visreg.predictor import Predictor

    checkpoint = Path(options.checkpoint)
    out = Path(options.out) if options.out else run_folder(checkpoint) / "predictions"
    files = find_images(options.images, without=out)
    with _out_of_memory_explained("lower --batch-size, or use smaller images"):
        predictor = Predictor.of(checkpoint, options.split, options.set, options.plugin, options.device)
        errors = predict_files(
            predictor, files, out, batch_size=options.batch_size, threshold=options.threshold, top=options.top
        )
    print(f"{len(files) - len(errors)} of {len(files)} images done; pictures and predictions.json are in {out}")
    if errors:
        raise DataError(f"{len(errors)} of {len(files)} images cannot be read; the first: {errors[0]}")
    return 0


def browse(options: argparse.Namespace) -> int:
    """Write pages of samples."""
    from visreg.browse import browse as write

    page = write(
        _load(options),
        options.split,
        Path(options.out) if options.out else None,
        count=options.count,
        indices=options.index,
        epochs=options.epochs,
        seed=options.seed,
        plugin_files=options.plugin,
    )
    print(f"wrote {page}")
    return 0


def benchmark(options: argparse.Namespace) -> int:
    """Find the fastest settings for a config."""
    from visreg.benchmark import benchmark as measure

    with _out_of_memory_explained():
        measure(_load(options), options.plugin, options.steps, options.rounds, options.limit)
    return 0


def check(options: argparse.Namespace) -> int:
    """List every mistake in a config, and with ``--data`` in its data."""
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


def explain(options: argparse.Namespace) -> int:
    """Say where a value of a config comes from."""
    from visreg.config import explain, parse_path

    print(explain(_load(options), parse_path(options.key)))
    return 0


def list_names(options: argparse.Namespace) -> int:
    """Show what is registered."""
    from visreg.listing import show

    for file in options.plugin:
        from visreg.plugin_file import load_file

        load_file(file)
    show(options.kind, options.name)
    return 0


def new_plugin(options: argparse.Namespace) -> int:
    """Write a plugin package."""
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

    def __init__(self, advice: str = "lower train.batch_size, or set run.gradient_checkpointing=True") -> None:
        self.advice = advice

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        first = str(error).splitlines()[0] if str(error) else "out of memory"
        if out_of_memory(error):
            raise ResourceError(f"{first}; {self.advice}") from error
        operation, found, _ = first.partition(" does not have a deterministic implementation")
        if isinstance(error, RuntimeError) and found:
            place = module_of(error) or "a backward pass, a loss or a transform"
            message = f"{operation}, in {place}, has no deterministic algorithm; set it to False, or use another layer"
            raise ConfigError([Problem("run.deterministic", message)]) from error
