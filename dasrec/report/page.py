"""One HTML page that needs nothing else, and the sections that it is made of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from bokeh.embed import file_html
from bokeh.plotting import figure
from bokeh.resources import INLINE
from jinja2 import Environment

from dasrec import files
from dasrec.errors import InputError


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, then text, figures and fragments in this order.

    Attributes
    ----------
    heading, text : str
        Plain; escaped when written. An empty line begins a paragraph. Without a heading the title
        of the first figure stands in the table of contents.
    figures : tuple of bokeh.plotting.figure
    html : tuple of str
        Fragments that are safe already, as :func:`metric_table` and :func:`list_table` return.
    """

    heading: str = ""
    text: str = ""
    figures: tuple[figure, ...] = ()
    html: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a bare figure or string where a tuple is expected."""
        kinds = [type(each).__name__ for each in (self.figures, self.html)]
        if kinds != ["tuple", "tuple"]:
            msg = f"figures and html are {' and '.join(kinds)}; expected tuples, even of one"
            raise InputError(msg)

    @property
    def label(self) -> str:
        """How the table of contents calls it."""
        titles: list[Any] = [each.title for each in self.figures if each.title]
        return self.heading or (str(titles[0].text) if titles else "")

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """The text, cut at empty lines."""
        return tuple(part.strip() for part in self.text.split("\n\n") if part.strip())


def write_page(
    out: str | os.PathLike[str], *, title: str, sections: Sequence[Section | figure]
) -> str:
    """Write one HTML file that needs nothing else, at once; return its place.

    Parameters
    ----------
    out : path or fsspec URL
        An older page there stays until the new one is whole.
    title : str
    sections : sequence of Section, or of bare figures
        With two or more there is a table of contents.

    Returns
    -------
    str
        ``out``: needs no network; 1.4 MB of it are Bokeh's script, if there are figures.

    Raises
    ------
    InputError
        A figure occurs twice.
    DiskError
        The place is full or may not be written.
    """
    whole = [each if isinstance(each, Section) else Section(figures=(each,)) for each in sections]
    figures = [each for section in whole for each in section.figures]
    if len({each.id for each in figures}) < len(figures):
        msg = "a figure occurs twice on the page; draw it again for its second place"
        raise InputError(msg)
    source = resources.files("dasrec").joinpath("templates/report.html").read_text("utf-8")
    template = Environment(autoescape=True, trim_blocks=True).from_string(source)
    parts = {"sections": whole}
    if figures:
        page = file_html(figures, INLINE, title, template=template, template_variables=parts)
    else:
        page = template.render(title=title, **parts)
    place = os.fspath(out)
    with files.writing(place):
        files.replace(place, page.encode())
    return place
