"""Which settings are fastest for a config on this machine: each takes a few steps, in turns with all others."""

from __future__ import annotations

import logging
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from attrs import define, field

from visreg import dist
from visreg.build import build_trainer
from visreg.candidates import AS_IS, FOR_MEMORY, NOTHING, PRECISION, Setting, candidates, silent, together
from visreg.check import check_config
from visreg.config import Config, apply_overrides
from visreg.contender import Contender, OneBatch, rehearse
from visreg.errors import VisregError
from visreg.loader import Loader

TURN, MOST = 0.5, 200  # seconds that a turn takes, and steps, where nobody says how many it has
FASTER = 0.97  # of the time: what is more is not worth a setting
FEWEST = 3  # rounds by which settings can be told apart


@define(eq=False)
class Race:
    """Lets settings of one config take steps in turns.

    Attributes:
        steps: of a turn; 0 for as many as half a second holds. rounds: how many turns each setting has.
        folder: what is written while training; nothing else is.
        limit: seconds that a setting may take to begin, but for the config as it is.
        loader: what all take their batches from, if that is memory.
        sample: a batch of the config as it is.
        rehearsed: settings that were tried in a process of their own.
    """

    config: Config
    plugin_files: Collection[Path]
    steps: int
    rounds: int
    folder: str
    limit: float = math.inf
    loader: Loader | None = None
    sample: OneBatch | None = None
    rehearsed: list[Setting] = field(factory=list)

    def enter(self, setting: Setting) -> Contender:
        """Return a setting, ready to be timed, unless it cannot run."""
        contender = Contender(setting)
        print(f"trying {setting}", file=sys.stderr, flush=True)  # a model may take minutes to compile
        with contender.working(), _caches_in(tempfile.mkdtemp(dir=self.folder)):
            config = apply_overrides(self.config, [*setting.overrides, f"run.work_dir={self.folder!r}"])
            known = setting == AS_IS or setting in self.rehearsed  # or else it may take for ever
            if not known and self.sample is not None and config.values["run"].get("compile"):
                rehearse(config, self.plugin_files, self.sample, self.limit)
                self.rehearsed.append(setting)
            of_data = any(path.startswith("train.") for path in setting.changes)
            runner = build_trainer(config, self.plugin_files, None if of_data else self.loader)
            if self.loader is None and runner.train_loader is not None and not runner.train_loader.waits:
                self.loader = runner.train_loader
            contender.begin(runner, math.inf if setting == AS_IS else self.limit)
            self.sample = self.sample or OneBatch.of(runner)
        return contender

    def run(self, contenders: Sequence[Contender]) -> None:
        """Time contenders, of which the first is what the others are compared with; then let go of them."""
        if not self.steps:
            self.steps = max(1, min(MOST, int(TURN / contenders[0].take(2))))
        for number in range(self.rounds):
            for contender in contenders if number % 2 else reversed(contenders):
                if contender.runner is not None:
                    with contender.working():
                        contender.take(contender.ahead)
                        contender.times.append(contender.take(self.steps))
        for contender in contenders:
            contender.close()


def finalists(contenders: Sequence[Contender]) -> list[Setting]:
    """Return what may be fastest of all: the fastest setting, and all that were faster by themselves, together.

    Both are there for those that change rounding at most and, where others are faster too, for all.
    """
    reference, *others = contenders
    best: dict[str, Setting] = {}  # by what excludes one another, the fastest first
    for contender in sorted(others, key=lambda contender: contender.ratio(reference)):
        (path, *_) = contender.setting.changes
        rival = {"optimizer.foreach": "optimizer.fused"}.get(path, path)
        if path != FOR_MEMORY and _faster(contender, reference):
            best.setdefault(rival, contender.setting)
    chosen = [*best.values()]
    same = [setting for setting in chosen if setting.effect != PRECISION]
    found: list[Setting] = []
    for settings in (same, chosen):
        found += [setting for setting in (*settings[:1], together(settings)) if setting.changes]
    return [setting for place, setting in enumerate(found) if setting not in found[:place]]


def benchmark(
    config: Config, plugin_files: Collection[Path] = (), steps: int = 0, rounds: int = 5, limit: float = 120
) -> None:
    """Time a config's settings, and print them; nothing is left on the disk.

    Args:
        config: as it is, which the settings are compared with.
        plugin_files: files that register components.
        steps: of a turn; 0 for as many as half a second holds.
        rounds: how many turns each setting has.
        limit: seconds that a setting may take to begin, such as to compile the model; then the others go on.

    Raises:
        ConfigError: if the config has mistakes.
        VisregError: whatever else keeps the config, as it is, from training.
    """
    if dist.world_size() > 1:
        raise VisregError("benchmark runs in one process; call it without torchrun")
    schema = check_config(config, plugin_files=plugin_files)
    with tempfile.TemporaryDirectory() as folder:
        race = Race(silent(config), plugin_files, steps, rounds, folder, limit)
        first = race.enter(AS_IS)
        assert first.runner is not None, "else it has raised"
        cores = f", threads: {torch.get_num_threads()}" if first.runner.device.type == "cpu" else ""
        print(f"steps of {schema.train.batch_size} samples on {first.runner.device}{cores}", flush=True)
        with _quiet():
            contenders = [first, *map(race.enter, candidates(schema, first.runner))]
            race.run(contenders)
            print(
                f"{_many(rounds, 'round')} of {_many(race.steps, 'step')} each", *rows(contenders), sep="\n", flush=True
            )
            settings = finalists(contenders)
            finals = [race.enter(setting) for setting in (AS_IS, *settings)] if settings else []
            if finals:
                race.run(finals)
        print(*conclusion(finals), sep="\n")
        if rounds < FEWEST:
            print(f"{_many(rounds, 'round')} cannot tell a faster setting from chance; take {FEWEST} or more")


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def rows(contenders: Sequence[Contender]) -> Iterator[str]:
    """Yield a table, line by line."""
    reference = contenders[0]
    yield f"  {'setting':40}{'ms per step':>12}  {'ratio':22}changes"
    for contender in contenders:
        ms = f"{1e3 * statistics.median(contender.times):12.3f}" if contender.times else ""
        if contender.reason:
            yield f"  {contender.setting!s:40}  {contender.reason}"
        else:
            memory = f"  {contender.memory / 1e6:,.0f} MB" * bool(contender.memory)
            yield f"  {contender.setting!s:40}{ms}  {_ratio(contender, reference):22}{contender.setting.effect}{memory}"


def conclusion(finals: Sequence[Contender]) -> Iterator[str]:
    """Yield what to do, line by line, given the config as it is and the `finalists`, timed together.

    What changes more, be it settings or the precision, has to be faster than what changes less.
    """
    reference, *others = best, *_ = finals or (Contender(AS_IS),)
    fastest: dict[bool, Contender] = {}  # by whether it changes the precision
    for contender in others:
        if _faster(contender, best):
            best = fastest[contender.setting.effect == PRECISION] = contender
    if not fastest:
        yield "nothing here is clearly faster than the config as it is"
    of = {PRECISION: "in less precision, of which only scores can tell", NOTHING: "with the same results"}
    for contender in fastest.values():
        kept = of.get(contender.setting.effect, f"with the same results but for {contender.setting.effect}")
        yield f"fastest {kept}: {_ratio(contender, reference)} of the time"
        yield f"    --set {contender.setting}"
        yield "    or, in a config whose _base_ is this one:"
        yield from (f"    {line}" for line in contender.setting.lines)


def _faster(contender: Contender, other: Contender) -> bool:
    """Return whether it is worth it, and not by chance: it was faster in each round."""
    enough = len(contender.times) >= FEWEST and not contender.reason
    return enough and contender.ratio(other) < FASTER and max(contender.ratios(other)) < 1


def _ratio(contender: Contender, reference: Contender) -> str:
    ratios = contender.ratios(reference)
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


@contextmanager
def _caches_in(folder: str) -> Iterator[None]:
    """Let caches be kept in a folder, so that each setting begins with none, and none is left."""
    before = os.environ.get("VISREG_CACHE")
    os.environ["VISREG_CACHE"] = folder
    try:
        yield
    finally:
        del os.environ["VISREG_CACHE"]
        os.environ.update({"VISREG_CACHE": before} if before is not None else {})


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to oneself what was logged once."""
    logger = logging.getLogger("visreg")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
