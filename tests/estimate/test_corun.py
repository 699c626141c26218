"""Words that are made when they are read."""

from tandem.estimate.corun import Slowdown, Words


def test_a_sentence_is_made_once_and_only_if_it_is_read() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return f"beside {name}"

    answer = Slowdown(1.2, 1.1, 1.3, True, Words(make, "cg"))
    assert answer.mid == 1.2
    assert made == []
    assert (answer.why, answer.why) == ("beside cg", "beside cg")
    assert made == ["cg"]


def test_answers_are_equal_where_they_say_the_same() -> None:
    said = Slowdown(1.2, 1.1, 1.3, True, "beside cg")
    assert Slowdown(1.2, 1.1, 1.3, True, Words("beside {}".format, "cg")) == said
    assert hash(Slowdown(1.2, 1.1, 1.3, True, Words("beside {}".format, "cg"))) == hash(said)
    assert Slowdown(1.2, 1.1, 1.3, True, Words("beside {}".format, "lu")) != said
    assert "beside lu" in repr(Slowdown(1.2, 1.1, 1.3, True, Words("beside {}".format, "lu")))
