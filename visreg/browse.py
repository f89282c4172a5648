"""Pages of samples as the model will see them: before and after augmentation, with all that is known of them drawn."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import define
from torch import Tensor

from visreg import pages
from visreg.colours import colour_of
from visreg.config import Config, apply_overrides
from visreg.data import DataInfo, Sample, batch_length
from visreg.diagnosis import call_of
from visreg.draw import class_name, counted, entries_of, picture
from visreg.errors import DataError, ResourceError
from visreg.findings import of_image
from visreg.generators import seeded
from visreg.pages import Bar, Figure, Item
from visreg.sampler import permutation
from visreg.view import Shown, Version, View, build_view, look, made
from visreg.whole_file import write_whole

PICTURES = "pictures"  # the folder of them, beside the pages
PER_PAGE = 50  # samples
CLASSES = 50  # that are listed
BATCHED = 16  # samples of a batch that are shown at most


def browse(
    config: Config,
    split: str = "train",
    out: Path | None = None,
    *,
    count: int = 16,
    indices: Sequence[int] = (),
    epochs: int = 3,
    seed: int = 0,
    plugin_files: Collection[Path] = (),
) -> Path:
    """Write pages of samples, and return the first.

    A sample in epoch e is the very one that training will see then, since its augmentation depends on the run's seed,
    e and its index alone. What ``batch_transforms`` draw depends on all that was drawn before: theirs are examples.

    Args:
        config: of the training.
        split: ``"train"``, ``"val"`` or ``"test"``.
        out: a folder, by default ``browse/SPLIT`` in the run's.
        count: how many samples to show, drawn at random.
        indices: which samples to show instead.
        epochs: in how many epochs each is shown, from the first on.
        seed: of which samples are drawn.
        plugin_files: files that register components.

    Raises:
        ConfigError: if the config has mistakes, or no such section.
        DataError: if the data is missing or empty, or has no sample of such an index.
        ResourceError: if the pages cannot be written.
    """
    config = apply_overrides(config, ["run.device=cpu"])  # a GPU is not needed

    def choose(size: int) -> Tensor:
        if wrong := [index for index in indices if index >= size]:
            raise DataError(f"{split}: there is no sample {wrong[0]}; there are {size}, counted from 0")
        if indices:
            return torch.tensor(list(dict.fromkeys(indices)))
        return permutation(size, seed)[:count].sort().values

    view = build_view(config, split, choose, plugin_files)
    out = out or view.work_dir / "browse" / split
    book = _Book(config=config, split=split, out=out, info=view.dataset.info)
    shown = list(look(view, count, epochs, book.seed))
    try:
        (out / PICTURES).mkdir(parents=True, exist_ok=True)
        return book.write(view, shown)
    except OSError as error:
        raise ResourceError(f"{out}: cannot write the pages: {error.strerror}; give --out FOLDER") from None


@define(kw_only=True, eq=False)
class _Book:
    """The pages of a split."""

    config: Config
    split: str
    out: Path
    info: DataInfo

    @property
    def section(self) -> Mapping[str, Any]:
        """Its section in the config."""
        section: Mapping[str, Any] = self.config.values[self.split]
        return section

    @property
    def seed(self) -> int:
        """The run's."""
        return int(self.config.values["run"].get("seed", 0))

    def write(self, view: View, shown: Sequence[Shown]) -> Path:
        """Write the pages and their pictures, and return the first page."""
        items = [pages.article(self.item(each)) for each in shown]
        parts = [items[start : start + PER_PAGE] for start in range(0, len(items), PER_PAGE)] or [[]]
        first = [pages.facts(self.facts(view, shown)), self.histogram(view, shown), self.batch(view)]
        name = self.config.file.name if self.config.file else "config"
        for number, part in enumerate(parts, start=1):
            top = [text for text in first if text] if number == 1 else []
            content = [*top, pages.section("Samples", *part)]
            text = pages.page(f"{name}: {self.split}", number, len(parts), content)
            write_whole(self.out / pages.page_name(number), text.encode())
        return self.out / pages.page_name(1)

    def item(self, shown: Shown) -> Item:
        """Return a sample as it is to be shown."""
        figures = [
            self.figure(version, f"{shown.index:06d}-{place}.png") for place, version in enumerate(shown.versions)
        ]
        first = shown.versions[0].sample
        text = ", ".join([_size(first), *(entry.text for entry in entries_of(first, self.info))]) if first else ""
        return Item(f"sample {shown.index}", shown.where, text, shown.problems, figures)

    def figure(self, version: Version, name: str) -> Figure:
        """Draw a sample into a file."""
        if version.sample is None:
            return Figure(version.title, "", version.problem)
        image = version.sample.get("image", version.sample.get("clip"))
        try:
            drawn = picture(torch.as_tensor(image), version.sample, self.info)
        except Exception as error:  # a sample may be anything, and is to be seen all the same
            return Figure(version.title, "", f"cannot be drawn: {type(error).__name__}: {error}")
        drawn.save(self.out / PICTURES / name)
        return Figure(f"{version.title}, {_size(version.sample)}", f"{PICTURES}/{name}")

    def facts(self, view: View, shown: Sequence[Shown]) -> list[tuple[str, str]]:
        """Return what is known of the data and of what is done to it."""
        length = "a stream" if view.dataset.stream() else f"{len(view.dataset):,} samples"
        rows = [("data", f"{self.info.name}, {length}, of which {len(shown)} are shown")]
        rows += [(f"classes of {key}", _listed(names)) for key, names in self.info.class_names.items()]
        for name in ("transforms", "batch_transforms"):
            rows.append((name, ", ".join(call_of(spec) for spec in self.section.get(name) or ()) or "none"))
        drawn = f"run.seed, {self.seed}, the epoch and the sample alone: these are the very ones that training sees"
        rows.append(("augmentation", f"depends on {drawn}; its epochs are counted from 1"))
        found = _statistics([version for each in shown for version in each.versions[-1:]])
        own = {key: self.config.values["task"].get(key) for key in ("mean", "std")}
        rows += [
            (f"{key} of these pixels", text + (f"; task.{key} is {own[key]}" if own[key] else ""))
            for key, text in found.items()
        ]
        bad = sum(bool(each.problems) for each in shown)
        return [*rows, ("wrong", f"{bad} of these; `visreg check CONFIG --data` looks at all")] if bad else rows

    def histogram(self, view: View, shown: Sequence[Shown]) -> str:
        """Return how many there are of each class, in the whole dataset if that takes no reading."""
        try:
            labels = view.dataset.labels() if len(view.indices) else None
        except DataError:
            labels = None
        whole, key = labels is not None, "label"
        samples = [each.versions[0].sample for each in shown]
        for other in ("label", "labels") if labels is None else ():
            values = [torch.as_tensor(sample[other]).flatten() for sample in samples if sample and other in sample]
            if labels is None and values:
                labels, key = torch.cat(values), other
        if labels is None or labels.is_floating_point():
            return ""
        counts, names = counted(labels), self.info.classes_of(key)
        order = sorted({*counts, *range(len(names))}) if len(names) <= CLASSES else [*dict(counts.most_common(CLASSES))]
        rows = [Bar(class_name(names, index), colour_of(max(index, 0)), counts[index]) for index in order]
        of_what = "images" if key == "label" else "objects"
        return pages.section(f"Classes of {'all' if whole else 'these'} {of_what}", pages.bars(rows))

    def batch(self, view: View) -> str:
        """Return the samples as one batch, where something is done to it as a whole."""
        together = view.together
        if together is None:
            return ""
        with seeded(self.seed):
            batch = made("a batch", lambda: next(together.epoch(0)))
        if batch.sample is None:
            item = Item("cannot be made", "", "", [batch.problem], [])
        else:
            count = min(batch_length(batch.sample), BATCHED)
            rows = [Version(f"{place + 1}", of_image(batch.sample, place)) for place in range(count)]
            item = Item("", "", "An example: what is drawn for a batch depends on all that was drawn before.", [], [
                self.figure(version, f"batch-{place}.png") for place, version in enumerate(rows)
            ])  # fmt: skip
        return pages.section("A batch, after batch_transforms", pages.article(item))


def _size(sample: Sample) -> str:
    image = sample.get("image", sample.get("clip"))
    if not isinstance(image, Tensor) or image.ndim not in (3, 4):
        return "no image"
    frames = f"{len(image)} frames of " if image.ndim == 4 else ""
    channels = image.shape[-3]
    return f"{frames}{image.shape[-2]}×{image.shape[-1]}, {channels} channel{'s' * (channels > 1)}"


def _statistics(versions: Sequence[Version]) -> dict[str, str]:
    """Return mean and standard deviation of the pixels of each channel, on the scale 0..1, if there are such."""
    images = [version.sample.get("image") for version in versions if version.sample is not None]
    pixels = [
        (image.float() / 255 if image.dtype == torch.uint8 else image.float()).flatten(1)
        for image in images
        if isinstance(image, Tensor) and image.ndim == 3
    ]
    if not pixels or len({len(each) for each in pixels}) > 1:
        return {}
    whole = torch.cat(pixels, dim=1).double()
    values = {"mean": whole.mean(dim=1), "std": whole.std(dim=1, correction=0)}
    return {key: f"[{', '.join(f'{number:.4f}' for number in value.tolist())}]" for key, value in values.items()}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - CLASSES} more" if len(names) > CLASSES else ""
    return f"{len(names)}: {', '.join(names[:CLASSES])}{more}"
