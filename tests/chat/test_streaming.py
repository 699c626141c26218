"""A reply's text as it is drawn: pieces are the whole, letters are never torn, a stop is never shown."""

from hypothesis import given
from hypothesis import strategies as st

from tandem.chat.streaming import Stream
from tests.chat.small import template

ONE = template()


def pieces_of(text: str, stops: tuple[str, ...] = ()) -> tuple[list[str], Stream]:
    stream = Stream(ONE, stops)
    pieces = [stream.add(token) for token in ONE.response(text)]
    return [*pieces, stream.rest()], stream


@given(st.text(max_size=12))
def test_pieces_are_the_whole_and_each_is_whole_letters(text: str) -> None:
    pieces, stream = pieces_of(text)
    assert "".join(pieces) == text
    assert not stream.stopped
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@given(st.text("abä", max_size=12), st.lists(st.text("abä", min_size=1, max_size=3), min_size=1, max_size=3))
def test_the_text_ends_before_the_first_stop_and_nothing_of_a_stop_is_shown(text: str, stops: list[str]) -> None:
    pieces, stream = pieces_of(text, tuple(stops))
    # Letter by letter, as somebody reads: the reply ends as soon as one of the stops stands at its end.
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            first = min(text.find(stop) for stop in stops if stop in text[:end])
            assert "".join(pieces) == text[:first]
            assert stream.stopped
            return
    assert "".join(pieces) == text
    assert not stream.stopped


def test_what_may_become_a_stop_is_held_back_until_it_is_clear() -> None:
    pieces, _ = pieces_of("aENx", ("END",))
    assert pieces == ["a", "", "", "ENx", "", ""]


def test_a_letter_cut_short_is_shown_at_the_end() -> None:
    stream = Stream(ONE)
    assert stream.add(ONE.response("ä")[0]) == ""
    assert stream.rest() == "\ufffd"
