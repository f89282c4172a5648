"""Pages of HTML with pictures: text that is escaped, and nothing that is not beside them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from attrs import frozen

from visreg.colours import Colour
from visreg.data import printable

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bad: #c62828; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1.5rem; max-width: 1700px; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; }
dt { opacity: .65; } dd { margin: 0; overflow-wrap: anywhere; }
article { border-top: 1px solid var(--line); padding: 1rem 0; }
h3 { font-size: 1rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h3 small { font-weight: normal; opacity: .65; margin-left: .5rem; }
p { margin: 0 0 .5rem; } .bad { color: var(--bad); font-weight: 600; overflow-wrap: anywhere; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; max-width: 100%; } figure img { display: block; max-width: 100%; max-height: 85vh; }
figcaption { font-size: .85rem; opacity: .75; }
.none { padding: 1rem; background: var(--soft); }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .1rem .6rem; max-width: 44rem; }
.bars i { display: block; height: .8rem; margin-top: .35rem; min-width: 1px; }
nav a, nav b { margin-right: .6rem; }
"""


@frozen
class Figure:
    """A picture, or why there is none.

    Attributes:
        file: its name, from the page's folder; empty if there is none.
    """

    caption: str
    file: str
    problem: str = ""


@frozen
class Item:
    """Figures that belong together, what is known of them, and what is wrong with them."""

    title: str
    subtitle: str
    text: str
    problems: Sequence[str]
    figures: Sequence[Figure]


@frozen
class Bar:
    """How many there are of something."""

    name: str
    colour: Colour
    count: int


def page(title: str, number: int, pages: int, parts: Sequence[str]) -> str:
    """Return a page of several, which link to one another; ``parts`` are HTML."""
    links = [
        f"<b>{each}</b>" if each == number else f'<a href="{page_name(each)}">{each}</a>'
        for each in range(1, pages + 1)
    ]
    nav = f"<nav>{''.join(links)}</nav>" if pages > 1 else ""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width">\n<title>{_text(title)}</title>'
    body = "\n".join([f"<h1>{_text(title)}</h1>", nav, *parts, nav])
    head = f"<head>{head}\n<style>{STYLE}</style></head>"
    return f'<!doctype html>\n<html lang="en">\n{head}\n<body>\n{body}\n</body></html>\n'


def page_name(number: int) -> str:
    """Return the name of the file of a page, counted from 1."""
    return "index.html" if number == 1 else f"page-{number}.html"


def section(title: str, *parts: str) -> str:
    """Return a part of a page under a title of its own."""
    return f"<h2>{_text(title)}</h2>\n" + "\n".join(parts)


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Return what is known, as names and values."""
    return "<dl>" + "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in rows) + "</dl>"


def bars(rows: Sequence[Bar]) -> str:
    """Return counts as bars, of which the longest is as wide as there is room."""
    most = max((row.count for row in rows), default=0) or 1
    cells = [
        f'<span>{_text(row.name)}</span><i style="width:{100 * row.count / most:.2f}%;background:rgb{row.colour}"></i>'
        f"<span>{row.count:,}</span>"
        for row in rows
    ]
    return f'<div class="bars">{"".join(cells)}</div>'


def article(item: Item) -> str:
    """Return figures in a row, with what is known of them."""
    title = f"<h3>{_text(item.title)}<small>{_text(item.subtitle)}</small></h3>"
    text = f"<p>{_text(item.text)}</p>" if item.text else ""
    problems = "".join(f'<p class="bad">{_text(problem)}</p>' for problem in item.problems)
    figures = "\n".join(map(_figure, item.figures))
    return f'<article>{title}{text}{problems}\n<div class="row">\n{figures}\n</div></article>'


def _figure(figure: Figure) -> str:
    caption = f"<figcaption>{_text(figure.caption)}</figcaption>"
    if not figure.file:
        return f'<figure><div class="none bad">{_text(figure.problem)}</div>{caption}</figure>'
    return f'<figure><img src="{_text(figure.file)}" alt="{_text(figure.caption)}" loading="lazy">{caption}</figure>'


def _text(text: str) -> str:
    return escape(printable(text), quote=True)
