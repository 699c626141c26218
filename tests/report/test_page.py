"""The page: nothing a user names can become part of it, nothing is fetched, and it is written whole."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.core import durable
from tandem.report import page as page_module
from tandem.report.gantt import Bar, Mark, gantt
from tandem.report.page import (
    Cell,
    Column,
    Fact,
    Facts,
    Figure,
    Key,
    Page,
    ReportError,
    Section,
    Table,
    Text,
    render,
    write,
)
from tandem.report.target import MARK, check

NASTY = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x=\'',
    "a\nb\r\n\x00\x1b[31m\u202e",
    "<!--",
    "]]><![CDATA[",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; &amp;amp; &#60;",
    "naïve 数据 🤖 \ud800",
    "</style><style>body{display:none}",
]


class Reader(HTMLParser):
    """Collects elements with their attributes, scripts and visible text, as a browser would."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[tuple[str, str]] = []
        self.comments: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._kind = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "script":
            self._kind = dict(attrs).get("type") or "javascript"
            self.scripts.append((self._kind, ""))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] = (self._kind, self.scripts[-1][1] + data)
        elif not self._open or self._open[-1] != "style":
            self.text += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def _page(name: str, *, figure: bool) -> Page:
    """A page with `name` wherever a user's text can stand."""
    blocks: list[Figure | Table | Facts | Text] = [
        Table([Column(name, unit=name)], [[name], [Cell(name, "bad")]], title=name, note=name),
        Facts([Fact(name, name, note=name, tone="good")]),
        Text("x" + name),
    ]
    if figure:
        bar = Bar(f"lane {name}", 0.0, 10.0, name, kind=name, hover=name, app=name, short=name, broken=True)
        plot = gantt([bar], title=name, caption=name, marks=[Mark(1.0, name)]).plot
        blocks.append(Figure(plot, name, name, (Key(name, "#000000", group=name),)))
    return Page(name, name, [Section(name, blocks, name)])


@given(st.text(min_size=1) | st.sampled_from(NASTY))
def test_no_name_adds_an_element_an_attribute_or_a_comment(name: str) -> None:
    read, plain = Reader(render(_page(name, figure=False))), Reader(render(_page("x", figure=False)))
    assert [e for e in read.elements if e[0] != "p"] == [e for e in plain.elements if e[0] != "p"]
    assert {e for e in read.elements if e[0] == "p"} <= {("p", ()), ("p", ("class",))}
    assert read.comments == []


@pytest.mark.parametrize("name", NASTY)
def test_no_name_escapes_from_a_picture(name: str) -> None:
    read, plain = Reader(render(_page(name, figure=True))), Reader(render(_page("x", figure=True)))
    assert [e for e in read.elements if e[0] != "p"] == [e for e in plain.elements if e[0] != "p"]
    assert read.comments == []
    figures = [json.loads(text) for kind, text in read.scripts if kind == "application/json"]
    assert len(figures) == 2  # the dark colours and the picture


@pytest.mark.parametrize("name", NASTY[:-2])
def test_a_figure_whose_maker_forgot_to_escape_stays_data(name: str) -> None:
    read = Reader(render(Page("t", "", [Section("", [Figure(go.Figure(layout={"title": {"text": name}}))])])))
    assert [kind for kind, _ in read.scripts] == ["application/json", "application/json", "javascript", "javascript"]
    assert json.loads(read.scripts[0][1])["layout"]["title"]["text"] == name
    assert "<" not in read.scripts[0][1]


@given(st.text() | st.sampled_from(NASTY))
def test_json_in_a_script_element_says_the_same_without_a_sign_of_html(text: str) -> None:
    safe = page_module._in_script(json.dumps(text, ensure_ascii=False))
    assert not set("<>&") & set(safe)
    assert json.loads(safe) == text


def test_names_are_shown_as_they_are() -> None:
    name = '<b>O\'Neil & "Söhne"</b>'
    assert Reader(render(_page(name, figure=False))).text.count(name) == 15


def test_every_pictures_texts_are_escaped_for_plotly() -> None:
    plot = gantt([Bar("<i>lane</i>", 0, 10, "<a href='x'>job</a>", hover="<s>\n&lt;")]).plot
    shown = json.dumps(plot.to_plotly_json(), default=list)
    tags = set(re.findall(r"<[^<>]*>", shown))
    assert tags <= {"<b>", "</b>", "<br>", "<extra>", "</extra>"}
    assert "&lt;a href='x'&gt;job" in shown


def test_nothing_is_fetched_and_only_the_pages_own_scripts_may_run() -> None:
    html = render(_page("x", figure=True))
    read = Reader(html)
    fetching = {"src", "href", "srcset", "data", "action", "poster", "background"}
    assert [a for a in read.attributes if a[1] in fetching] == []
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in read.elements}
    (policy,) = [value for _, name, value in read.attributes if name == "content" and "script-src" in value]
    code = [text for kind, text in read.scripts if kind == "javascript"]
    assert len(code) == 2
    for script in code:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy
    style = html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_plotly_is_inlined_once_and_only_where_there_is_a_picture() -> None:
    picture = gantt([Bar("core 0", 0, 1, "cg")])
    two = render(Page("t", "", [Section("", [picture, picture])]))
    assert 4e6 < len(two) < 6e6
    assert len(render(Page("t", "", [Section("", [Text("words")])]))) < 20_000


def test_dark_colours_cover_what_the_pictures_use() -> None:
    read = Reader(render(Page("t", "", [Section("", [gantt([Bar("core 0", 0, 1, "cg")])])])))
    figure, colours = (text for kind, text in read.scripts if kind == "application/json")
    dark = json.loads(colours)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for pair in dark.items() for colour in pair)
    assert {colour for colour in dark if colour in figure} >= {"#1d2630", "#66717e", "#f3f5f7"}


def test_an_empty_page_is_a_page() -> None:
    read = Reader(render(Page("", "", [])))
    assert ("main", ()) in read.elements
    assert read.scripts == []


def test_a_table_without_rows_says_so() -> None:
    assert "none" in Reader(render(Page("t", "", [Section("", [Table([Column("job")], [])])]))).text


def test_running_text_in_a_table_may_be_wrapped_whatever_its_tone() -> None:
    why = "failed: a dependency on the success of first, which ended as failed"
    table = Table([Column("a"), Column("b")], [[Cell("no", "bad"), Cell(why, "bad")]])
    page = render(Page("T", "", [Section("S", [table])]))
    assert re.findall(r'<td class="([^"]+)">(no|failed)', page) == [("left bad", "no"), ("left bad prose", "failed")]
    assert re.search(r"td\.prose \{[^}]*white-space: normal", page)


def test_write_replaces_the_old_report_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    assert write(Page("first", "", []), path) == path
    write(Page("second", "", []), path)
    assert "<h1>second</h1>" in path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_write_that_breaks_off_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write(Page("first", "", []), path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(ReportError, match="No space left on device"):
        write(Page("second", "", []), path)
    assert "<h1>first</h1>" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_rendered_leaves_no_file(tmp_path: Path) -> None:
    broken = Figure(go.Figure(layout={"meta": {"x": object()}}))
    with pytest.raises(TypeError):
        write(Page("t", "", [Section("", [broken])]), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["my own notes", "<!doctype html><title>somebody's page</title>"])
def test_what_is_no_report_is_not_replaced(tmp_path: Path, words: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(words)
    for refuse in (check, lambda path: write(Page("t", "", []), path)):
        with pytest.raises(ReportError, match=r"report\.html, which is not a report that Tandem wrote; .*--report"):
            refuse(path)
    assert path.read_text() == words


def test_a_report_from_before_reports_were_marked_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(Page("first", "", [])).replace(MARK, ""))
    check(path)
    write(Page("second", "", []), path)
    assert "<h1>second</h1>" in path.read_text()


def test_the_mark_stands_where_it_is_looked_for_in_a_page_with_pictures(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write(Page("a long title " * 1000, "", [Section("", [Figure(go.Figure())])]), path)
    assert MARK in path.read_text()
    check(path)
    write(Page("second", "", []), path)
    assert "<h1>second</h1>" in path.read_text()


def test_a_check_makes_nothing(tmp_path: Path) -> None:
    check(tmp_path / "new" / "below" / "report.html")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ReportError, match=r"cannot be written to /proc/none/report\.html"):
        check(Path("/proc/none/report.html"))


@pytest.mark.parametrize("kind", ["folder", "below a file"])
def test_a_path_that_cannot_be_written_is_the_users_mistake(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" if kind == "folder" else tmp_path / "file" / "report.html"
    for refuse in (check, lambda path: write(Page("t", "", []), path)):
        with pytest.raises(ReportError, match="cannot be written"):
            refuse(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
