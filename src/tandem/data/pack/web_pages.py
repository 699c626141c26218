"""The files below a folder of a web server, by the links of the pages that it lists its folders with.

Links are followed as browsers do: relative to where the page came from, HTML's entities decoded (RFC 3986, 5.2). What
counts is what lies below the folder; a page's links to itself, which sort it, and to anywhere else are none.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from tandem.data.cache.settings import RemoteError
from tandem.data.pack.urls import WEB_REQUESTS, attempted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Told = Mapping[str, Any]  # by fsspec, of a file


def files_below(files: Any, url: str, levels: int | None = None) -> tuple[str, dict[str, Told]]:  # noqa: ANN401 - fsspec ships no types
    """Where a folder is, and what fsspec knows of each file below it, by its place there; of a file, "" and its URL.

    Args:
        files: fsspec's file system of web servers.
        url: The folder, or a file.
        levels: How many folders deep; all if None.

    Raises:
        RemoteError: A page or file is not there, or cannot be read, or a folder leads elsewhere.
    """
    told = attempted(url, partial(files.info, url))
    page = str(told.get("url", url))
    if not _is_folder(page) and told.get("mimetype") != "text/html":
        return "", {url: told}
    root = page.partition("?")[0].rstrip("/") + "/"
    found: dict[str, Told] = {}
    seen = {""}
    pages = [page]
    while pages and levels != 0:
        linked = {place for one in pages for place in _links(files, one, root)}
        pages = []
        asked = [place for place in sorted(linked - seen) if levels != 1 or not place.endswith("/")]
        for place, known in _known(files, root, asked).items():
            leads_to = str(known.get("url", root + place))
            if not _is_folder(leads_to):
                found[place] = known
            elif (below := _below(leads_to, root)) is None:
                raise RemoteError(
                    given=f"{root}{place}, a folder that leads to {leads_to}",
                    allowed="folders below the one that is packed",
                    todo=f"pack {leads_to} by itself",
                )
            elif below not in seen:
                seen.add(below)
                pages.append(leads_to)
        seen |= linked
        levels = None if levels is None else levels - 1
    if not found and not _is_folder(page):
        return "", {url: told}
    return root, found


def _known(files: Any, root: str, places: Iterable[str]) -> dict[str, Told]:  # noqa: ANN401
    with ThreadPoolExecutor(WEB_REQUESTS) as pool:
        asked = {one: pool.submit(attempted, root + one, partial(files.info, root + one)) for one in places}
        try:
            return {place: one.result() for place, one in asked.items()}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _links(files: Any, page: str, root: str) -> Iterator[str]:  # noqa: ANN401
    """The places below a folder that a page links to; a folder's ends in `/`."""
    anchors = _Anchors()
    anchors.feed(attempted(page, partial(files.cat_file, page)).decode(errors="replace"))
    for target in anchors.targets:
        with suppress(ValueError):  # no URL
            if place := _below(urljoin(page, target.strip()), root):
                yield place


class _Anchors(HTMLParser):
    """Where the anchors of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an anchor."""
        self.targets += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _is_folder(url: str) -> bool:
    return urlsplit(url).path.endswith("/")


def _below(url: str, root: str) -> str | None:
    """A URL's place below a folder, by http or https, however it is encoded, with a file's query; "" for itself."""
    parts, folder = urlsplit(url), urlsplit(root)
    names, above = parts.path.split("/"), folder.path.split("/")[:-1]
    if parts.netloc != folder.netloc or [*map(unquote, names[: len(above)])] != [*map(unquote, above)]:
        return None
    place = "/".join(names[len(above) :])
    return f"{place}?{parts.query}" if parts.query and place and not place.endswith("/") else place
