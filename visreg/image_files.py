"""Which image files a user means, and what to call the files that are made of them."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from attrs import define, field

from visreg.data import printable
from visreg.datasets.folder import SUFFIXES
from visreg.errors import DataError


def find_images(words: Sequence[str], without: Path) -> list[Path]:
    """Return the files that ``words`` mean, each once, in their order.

    A word is a file of any name; a folder, of which all image files at any depth are meant, by name; or a pattern such
    as ``"photos/**/*.jpg"``, of which all image files and folders are.

    Args:
        words: as a user gives them.
        without: a folder whose files are not meant unless they are named: that of the results.

    Raises:
        DataError: if a word means nothing; says which.
    """
    found: dict[Path, Path] = {}
    for word in words:
        files = list(_meant(word, without.resolve()))
        if not files:
            raise DataError(_nothing(word))
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _meant(word: str, without: Path) -> Iterator[Path]:
    path = Path(word)
    if path.is_dir():
        yield from _inside(path, without)
    elif path.exists():
        yield path
    else:
        for match in map(Path, sorted(glob.glob(word, recursive=True))):  # noqa: PTH207  a pattern may be absolute
            if match.is_dir() and "**" not in word:
                yield from _inside(match, without)
            elif match.is_file() and _is_image(match, without):
                yield match


def _inside(folder: Path, without: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and _is_image(path, without))


def _is_image(path: Path, without: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.suffix.lower() in SUFFIXES and not hidden and not path.resolve().is_relative_to(without)


def _nothing(word: str) -> str:
    path, kinds = Path(word), f"image files end in {', '.join(sorted(SUFFIXES))}"
    if path.is_dir():
        return f"{printable(path)}: no image in this folder, at any depth; {kinds}"
    if glob.has_magic(word):
        return f"{printable(word)}: matches no image; {kinds}"
    return f"{printable(path)}: no such file or folder; give files, folders, or patterns such as 'photos/**/*.jpg'"


@define
class Names:
    """Names of new files in a folder, of which no two are one, and none is that of a file to be kept.

    Args:
        folder: where they are to be.
        kept: files that must not be written over.
    """

    folder: Path
    kept: Iterable[Path] = ()
    _taken: set[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        here = self.folder.resolve()
        self._taken = {path.resolve().name.lower() for path in self.kept if path.resolve().parent == here}

    def give(self, stem: str, *suffixes: str) -> list[str]:
        """Return a name for each of ``suffixes``, all with one stem: that which is asked for, or with a number.

        >>> names = Names(Path("nowhere"))
        >>> names.give("cat", ".png", ".mask.png"), names.give("Cat", ".png")
        (['cat.png', 'cat.mask.png'], ['Cat-2.png'])
        """
        number = 1
        while True:
            found = [f"{stem}{'' if number == 1 else f'-{number}'}{suffix}" for suffix in suffixes]
            if self._taken.isdisjoint(name.lower() for name in found):  # some disks know no upper and lower case
                self._taken.update(name.lower() for name in found)
                return found
            number += 1
