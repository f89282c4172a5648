"""Which files a user means, and that no result takes another's place."""

from __future__ import annotations

from pathlib import Path

import pytest

from visreg.errors import DataError
from visreg.image_files import Names, find_images

OUT = Path("out")


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.png",
        "a.JPG",
        "notes.txt",
        ".hidden.png",
        "deep/er/c.jpeg",
        "deep/b.png",
        "odd[1].png",
        "out/d.png",
    ):
        Path("photos" if not name.startswith("out") else ".", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos" if not name.startswith("out") else ".", name).touch()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["photos/b.png"], ["b.png"]),
        (["photos/notes.txt"], ["notes.txt"]),  # which is named, so it is to be read
        (["photos"], ["a.JPG", "b.png", "b.png", "c.jpeg", "odd[1].png"]),
        (["photos/*.png"], ["b.png", "odd[1].png"]),
        (["photos/*"], ["a.JPG", "b.png", "b.png", "c.jpeg", "odd[1].png"]),
        (["photos/**/*.jpeg"], ["c.jpeg"]),
        (["photos/**"], ["a.JPG", "b.png", "b.png", "c.jpeg", "odd[1].png"]),
        (["photos/odd[1].png"], ["odd[1].png"]),
        (["photos/b.png", "photos/b.png", "photos/../photos/b.png", "photos/b*"], ["b.png"]),
        (["."], ["a.JPG", "b.png", "b.png", "c.jpeg", "odd[1].png"]),  # and not earlier results
        (["out/d.png"], ["d.png"]),
    ],
)
def test_what_is_meant(words, names):
    assert sorted(path.name for path in find_images(words, OUT)) == names


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("photos/z.png", "photos/z.png: no such file or folder; give files, folders, or patterns such as"),
        ("photos/*.gif", r"photos/\*.gif: matches no image; image files end in .bmp, .gif"),
        ("empty", "empty: no image in this folder, at any depth"),
    ],
)
def test_what_means_nothing_is_named(word, message):
    Path("empty").mkdir()
    with pytest.raises(DataError, match=message):
        find_images(["photos/b.png", word], OUT)


def test_no_two_results_have_one_name_and_none_is_written_over_a_source():
    OUT.mkdir(exist_ok=True)
    names = Names(OUT, kept=[Path("out/d.png"), Path("photos/b.png")])
    given = [names.give(stem, ".png", ".mask.png")[0] for stem in ("b", "b", "d", "B", "b-2", "b.mask")]
    assert given == ["b.png", "b-2.png", "d-2.png", "B-3.png", "b-2-2.png", "b.mask-2.png"]
