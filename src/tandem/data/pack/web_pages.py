"""The files below a folder of a web server, by the links of the pages that it lists its folders with.

Links are followed as browsers do: relative to where the page came from, HTML's entities decoded (RFC 3986, 5.2). What
counts is what lies below the folder; a page's links to itself that sort it, and to anywhere else, are none.
"""

from __future__ import annotations

import gzip
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_to_bytes, urljoin, urlsplit

from tandem.data.cache.settings import RemoteError
from tandem.data.pack.urls import WEB_REQUESTS, MissingError, attempted, failures_said

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Told = Mapping[str, Any]  # by fsspec, of a file

_GZIPPED = b"\x1f\x8b"
_SORTS = re.compile(r"C=[A-Z][;&]O=[AD]|(?:sort|order)=\w*(?:&(?:sort|order)=\w*)?")  # Apache and nginx; Caddy


def files_below(files: Any, url: str, levels: int | None = None) -> tuple[str, dict[str, Told]]:  # noqa: ANN401 - fsspec ships no types
    """Where a folder is, and what fsspec knows of each file below it, by its place there; of a file, "" and its URL.

    What a page links to as a file and is not there has the type "other", as links to nothing have.

    Args:
        files: fsspec's file system of web servers.
        url: The folder, or a file.
        levels: How many folders deep; all if None.

    Raises:
        RemoteError: A page is not there, or cannot be read, or a folder leads elsewhere.
    """
    told = attempted(url, partial(files.info, url))
    page = _with_user_of(url, str(told.get("url", url)))
    if not _is_folder(page) and told.get("mimetype") != "text/html":
        return "", {url: told}
    root = page.partition("?")[0].rstrip("/") + "/"
    found: dict[str, Told] = {}
    seen = {_key(_below(page, root) or "")}
    pages = [page]
    while pages:
        linked = {_key(place): place for one in pages for place in _links(files, one, root)}
        new = [place for key, place in sorted(linked.items()) if key not in seen and _is_near(place, levels)]
        seen |= linked.keys()
        pages = []
        for place, known in _known(files, root, new).items():
            leads_to = _with_user_of(root, str(known.get("url", root + place)))
            if not _is_folder(leads_to):
                found[place] = known
            elif (below := _below(leads_to, root)) is None:
                raise RemoteError(
                    given=f"{root}{place}, a folder that leads to {leads_to}",
                    allowed="folders below the one that is packed",
                    todo="pack what it leads to by itself",
                )
            elif _key(below) not in seen or _key(below) == _key(place):
                seen.add(_key(below))
                pages.append(leads_to)
    if not found and not _is_folder(page):
        return "", {url: told}
    return root, found


def _known(files: Any, root: str, places: Iterable[str]) -> dict[str, Told]:  # noqa: ANN401
    def known(place: str) -> Told:
        try:
            return attempted(root + place, partial(files.info, root + place))
        except MissingError:
            if _is_folder(root + place):
                raise
            return {"type": "other"}

    with ThreadPoolExecutor(WEB_REQUESTS) as pool:
        asked = {one: pool.submit(known, one) for one in places}
        try:
            return {place: one.result() for place, one in asked.items()}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _links(files: Any, page: str, root: str) -> Iterator[str]:  # noqa: ANN401
    """The places below a folder that a page links to; a folder's ends in `/`, up to a query."""
    anchors = _Anchors()
    text = attempted(page, partial(files.cat_file, page))
    if text.startswith(_GZIPPED):  # by some servers, whatever was asked for
        with failures_said(page):
            text = gzip.decompress(text)
    anchors.feed(text.decode(errors="replace"))
    for target in anchors.targets:
        with suppress(ValueError):  # no URL
            place = _below(urljoin(urljoin(page, anchors.base), target.strip()), root)
            if place and not (_is_folder(root + place) and _SORTS.fullmatch(place.partition("?")[2])):
                yield place


class _Anchors(HTMLParser):
    """Where the anchors of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an anchor, or what all are relative to."""
        target = dict(attrs).get("href") or ""
        if tag == "a" and target:
            self.targets.append(target)
        elif tag == "base" and not self.base:
            self.base = target


def _is_folder(url: str) -> bool:
    return urlsplit(url).path.endswith("/")


def _is_near(place: str, levels: int | None) -> bool:
    """Whether it is a file, or a folder that lies less than so many levels deep."""
    path = place.partition("?")[0]
    return levels is None or path.count("/") < levels or not (path == "" or path.endswith("/"))


def _key(place: str) -> tuple[bytes, str]:
    """What tells a place from others, however its path is encoded."""
    path, _, query = place.partition("?")
    return unquote_to_bytes(path), query


def _below(url: str, root: str) -> str | None:
    """A URL's place below a folder, by http or https, however it is encoded, with its query; "" for itself."""
    parts, folder = urlsplit(url), urlsplit(root)
    names, above = parts.path.split("/"), folder.path.split("/")[:-1]
    if _host(parts.netloc) != _host(folder.netloc) or [*map(unquote, names[: len(above)])] != [*map(unquote, above)]:
        return None
    place = "/".join(names[len(above) :])
    return f"{place}?{parts.query}" if parts.query and len(names) > len(above) else place


def _host(netloc: str) -> str:
    return netloc.rpartition("@")[2].lower()


def _with_user_of(named: str, url: str) -> str:
    """A URL of a server's answer, which has lost user and password, with those of what was asked for at that host."""
    parts, netloc = urlsplit(url), urlsplit(named).netloc
    return parts._replace(netloc=netloc).geturl() if _host(parts.netloc) == _host(netloc) else url
