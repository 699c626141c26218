"""Rows: read, checked, split and blended."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from tandem.chat.data import sources
from tandem.chat.data.batches import Budgeted, padded
from tandem.chat.data.blend import Blend
from tandem.chat.data.rows import Question, Response, gather
from tandem.chat.data.turns import Fitting, Length, Turn
from tandem.chat.errors import RowsError
from tandem.chat.recipe import Data, Source
from tandem.core.errors import MissingPackageError
from tandem.data.space.writer import SpaceWriter
from tests.chat.small import template, turns, write_rows


def data(*paths: Path, **settings: object) -> Data:
    return Data(sources=tuple(Source(path=str(path)) for path in paths), **settings)


def quiet(text: str) -> None:
    del text


def test_no_prompt_serves_two_phases_or_is_held_out_too_whatever_file_it_stands_in(tmp_path: Path) -> None:
    first, second = write_rows(tmp_path / "a.jsonl", 200), write_rows(tmp_path / "b.jsonl", 100)
    rows = gather(data(first, second, held_out=0.2), seed=3, say=quiet)
    phases = [{row.prompt for part in parts for row in part} for parts in (rows.sft, rows.reward, rows.rl)] + [
        {row.prompt for row in rows.held_out}
    ]
    assert all(phases)
    assert sum(map(len, phases)) == len(set().union(*phases))
    again = gather(data(first, second, held_out=0.2), seed=3, say=quiet)
    assert (again.sft, again.held_out) == (rows.sft, rows.held_out)
    assert gather(data(first, second, held_out=0.2), seed=4, say=quiet).held_out != rows.held_out


def test_prompts_whose_rows_all_have_the_same_columns_are_split_as_ever(tmp_path: Path) -> None:
    said: list[str] = []
    rows = gather(data(write_rows(tmp_path / "a.jsonl", 200), held_out=0.2), seed=3, say=said.append)
    digest = hashlib.sha256(repr((rows.sft, rows.reward, rows.rl, rows.held_out)).encode()).hexdigest()
    assert digest == "c0d1705b995f58326b351d1b350f0995e7c10ae1b9265e1a1c2538e8e1a2c12c"  # of the first split there was
    assert not said


def test_files_of_responses_and_of_answers_share_out_their_prompts_and_tell_what_is_left_out(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text("".join(json.dumps({"prompt": f"q{i}", "response": "x"}) + "\n" for i in range(200)))
    second.write_text(
        "".join(json.dumps({"prompt": f"q{i}", "response": "y", "answer": "x"}) + "\n" for i in range(200))
    )
    sources = (Source(path=str(first), phases=("sft",)), Source(path=str(second), phases=("rl",)))
    said: list[str] = []
    rows = gather(Data(sources=sources), seed=0, say=said.append)
    imitated, answered = {row.prompt for row in rows.sft[0]}, {row.prompt for row in rows.rl[1]}
    assert imitated
    assert answered
    assert len(imitated | answered | {row.prompt for row in rows.held_out}) == 200
    assert not imitated & answered
    for file, missing in ((first, answered), (second, imitated)):
        assert any(f"{file}: {len(missing)} rows left out: their prompts serve another stage" in text for text in said)


def test_a_source_whose_prompts_all_serve_another_stage_is_refused_with_that_as_the_reason(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text('{"prompt": "p", "response": "r"}\n{"prompt": "q", "response": "r"}\n')
    second.write_text('{"prompt": "p", "answer": "r"}\n')
    with pytest.raises(
        RowsError, match="none of 1 good rows is left to train on: the prompts of 1 serve another stage"
    ):
        gather(data(first, second, held_out=0.0, split=(1.0, 0.0, 1e-9)), seed=0, say=quiet)


COLUMNS = {"sft": {"response": "r"}, "reward": {"chosen": "c", "rejected": "d"}, "rl": {"answer": "a"}}
NAMES = st.sets(st.sampled_from(sorted(COLUMNS)), min_size=1)
LINES = st.lists(st.tuples(st.integers(0, 20), NAMES), max_size=40)


def serves(has: set[str], phases: set[str] | None) -> set[str]:
    """What a row with these columns can serve in a source of these phases: pairs and named sources need no answer."""
    can = has | ({"rl"} if "reward" in has else set())
    return can if phases is None else (has | {"rl"}) & phases


@given(
    st.lists(st.tuples(st.none() | NAMES, LINES), min_size=1, max_size=3),
    st.lists(st.sampled_from([0.0, 1.0, 3.0]), min_size=3, max_size=3).filter(any),
    st.integers(0, 9),
)
@settings(max_examples=60)
def test_whatever_columns_rows_have_a_prompt_serves_one_phase_and_every_row_is_used_or_counted(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[tuple[set[str] | None, list[tuple[int, set[str]]]]],
    shares: list[float],
    seed: int,
) -> None:
    folder, listed, said = tmp_path_factory.mktemp("rows"), [], list[str]()
    lines = [
        [*((f"q{i}", has) for i, has in some), *((f"all {n}", set(COLUMNS)) for n in range(12))] for _, some in files
    ]
    for number, ((phases, _), some) in enumerate(zip(files, lines, strict=True)):
        made = [{"prompt": prompt} | {k: v for name in has for k, v in COLUMNS[name].items()} for prompt, has in some]
        (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
        listed.append(Source(path=str(folder / f"{number}.jsonl"), phases=phases and tuple(sorted(phases))))
    try:
        rows = gather(Data(sources=tuple(listed), split=tuple(shares), held_out=0.2), seed=seed, say=said.append)
    except RowsError:  # a file of which nothing is left
        reject()
    trained = [[row.prompt for part in parts for row in part] for parts in (rows.sft, rows.reward, rows.rl)]
    held = {row.prompt for row in rows.held_out}
    assert sum(len(set(prompts)) for prompts in (*trained, held)) == len(set().union(*trained, held))
    good = [
        prompt for (phases, _), some in zip(files, lines, strict=True) for prompt, has in some if serves(has, phases)
    ]
    left_out = sum(int(count) for text in said for count in re.findall(r": (\d+) rows left out", text))
    assert sum(map(len, trained)) + sum(prompt in held for prompt in good) + left_out == len(good)
    assert len(good) + sum(rows.bad.values()) == sum(map(len, lines))


def test_shares_are_about_those_that_were_asked_for(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": str(i), "response": "r", "chosen": "c", "rejected": "d"}) for i in range(4000)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    rows = gather(data(tmp_path / "a.jsonl", held_out=0.2, split=(2.0, 4.0, 4.0)), seed=0, say=quiet)
    counts = [len(rows.sft[0]), len(rows.reward[0]), len(rows.rl[0]), len(rows.held(Response))]
    assert counts == pytest.approx([640, 1280, 1280, 800], rel=0.1)
    assert len(rows.held(Question)) == len(rows.held(Response))


def test_columns_are_named_and_a_source_serves_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "gsm.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": "It is 2. #### 2"}) + "\n")
    one = Source(path=str(tmp_path / "gsm.jsonl"), prompt="question", response="answer", phases=("sft",))
    rows = gather(Data(sources=(one,), held_out=0.0), seed=0, say=quiet)
    assert rows.sft == [[Response("1 + 1?", "It is 2. #### 2")]]
    assert (rows.reward, rows.rl) == ([[]], [[]])


BAD = [
    ("{", "no JSON"),
    ("[1]", "no object"),
    ('{"prompt": 3, "response": "r"}', "row 1 has no text 'prompt'"),
    ('{"prompt": "p", "chosen": "same", "rejected": "same"}', "prefers a response to itself"),
    ('{"prompt": "p"}', "has no text under"),
    ('{"prompt": "p", "response": "r", "rejected": 3}', "row 1 has 3 for text in 'rejected'"),
    ('{"prompt": "p", "response": NaN, "answer": "a"}', "row 1 has nan for text in 'response'"),
    (r'{"prompt": "(\ud800", "response": "r"}', "half of a surrogate pair in 'prompt'"),
    (r'{"prompt": "p", "answer": "y\udfff"}', "half of a surrogate pair in 'answer'"),
]


@pytest.mark.parametrize(("line", "told"), BAD)
def test_a_bad_row_is_counted_and_shown_or_stops_as_the_recipe_says(line: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "p", "response": "r"}\n' + line + "\n")
    said: list[str] = []
    rows = gather(data(file, held_out=0.0), seed=0, say=said.append)
    assert rows.bad == {str(file): 1}
    assert "1 bad rows skipped" in said[0]
    assert told in said[0]
    with pytest.raises(RowsError, match=told):
        gather(data(file, held_out=0.0, bad_rows="stop"), seed=0, say=quiet)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty"),
        ("\n\n", "it is empty"),
        ("{}\n", "no good row, 1 bad ones, such as: row 0 has no text 'prompt'"),
    ],
)
def test_a_file_without_a_good_row_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(RowsError, match=told):
        gather(data(tmp_path / "rows.jsonl"), seed=0, say=quiet)


@pytest.mark.parametrize("settings", [{"held_out": 0.9999}, {"split": (0.0, 1.0, 1.0)}])
def test_good_rows_of_which_none_is_left_are_not_called_bad(settings: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p", "response": "r"}\n')
    with pytest.raises(RowsError, match=r"none of 1 good rows is left to train on; .*data\.held_out is"):
        gather(data(tmp_path / "rows.jsonl", **settings), seed=0, say=quiet)


def test_a_source_that_is_not_there_and_one_that_is_no_space_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RowsError, match="no such file or folder"):
        sources.read(tmp_path / "none.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RowsError, match="folder"):
        list(sources.read(tmp_path / "folder"))
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(RowsError, match=r"pipe.jsonl: neither a file nor a folder; .*; copy it to a file"):
        sources.read(tmp_path / "pipe.jsonl")


def test_a_space_is_read_for_its_jsonl_files(tmp_path: Path) -> None:
    plain = write_rows(tmp_path / "rows.jsonl", 5)
    with SpaceWriter(tmp_path / "rows.space") as writer:
        writer.add("some/rows.jsonl", plain.read_bytes())
        writer.add("notes.txt", b"not a row")
        writer.commit()
    assert list(sources.read(tmp_path / "rows.space")) == list(sources.read(plain))


@pytest.mark.slow
def test_parquet_and_folders_of_datasets_are_read_as_the_same_rows(tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa
    from pyarrow import parquet

    plain = list(sources.read(write_rows(tmp_path / "rows.jsonl", 5)))
    parquet.write_table(pa.Table.from_pylist(plain), tmp_path / "rows.parquet")
    assert list(sources.read(tmp_path / "rows.parquet")) == plain
    whole = datasets.Dataset.from_list(plain)
    whole.save_to_disk(str(tmp_path / "one"))
    assert list(sources.read(tmp_path / "one")) == plain
    splits = datasets.DatasetDict(train=whole.select([0, 1, 2]), test=whole.select([3, 4]))
    splits.save_to_disk(str(tmp_path / "splits"))
    assert list(sources.read(tmp_path / "splits")) == plain


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(64) + b"PAR1"])
def test_a_torn_parquet_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(RowsError, match=r"rows\.parquet"):
        list(sources.read(tmp_path / "rows.parquet"))


def test_without_its_package_a_format_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingPackageError, match=r"tandemlab\[chat\]"):
        list(sources.read(tmp_path / "rows.parquet"))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 60), st.integers(1, 40), st.integers(0, 9))
def test_a_blends_rows_do_not_depend_on_how_they_are_asked_for(
    sizes: list[int], first: int, count: int, seed: int
) -> None:
    lists = [[(source, i) for i in range(size)] for source, size in enumerate(sizes)]
    blend = Blend(lists, [1.0] * len(sizes), seed=seed, what="row")
    whole = blend.at(first, count)
    assert whole == [row for at in range(first, first + count) for row in blend.at(at, 1)]


def test_a_blend_keeps_its_weights_at_every_moment_and_shows_each_row_before_any_again() -> None:
    lists = [list(range(10)), list(range(100, 140))]
    drawn = Blend(lists, [3.0, 1.0], seed=0, what="row").at(0, 40)
    first = [row for row in drawn if row < 100]
    assert len(first) == 30
    assert Counter(first) == dict.fromkeys(range(10), 3)
    assert all(abs(sum(row < 100 for row in drawn[:t]) - 0.75 * t) < 1.0 for t in range(1, 41))


def test_an_empty_blend_says_what_is_missing() -> None:
    with pytest.raises(RowsError, match="no preference pair in any source"):
        Blend([[], []], [1.0, 1.0], seed=0, what="preference pair")


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=30),
    st.integers(1, 40),
    st.booleans(),
    st.integers(0, 9),
)
def test_token_budgets_hold_and_an_epoch_has_every_turn_once(
    lengths: list[tuple[int, int]], budget: int, packing: bool, seed: int
) -> None:
    rows = turns(lengths, seed)
    budgeted = Budgeted(Blend([rows], [1.0], seed=seed, what="turn"), budget, packing=packing)
    seen: list[Turn] = []
    step = 0
    while len(seen) < len(rows):
        batch = budgeted.at(step)
        cost = sum(len(t.tokens) for t in batch) if packing else padded(batch, 0).tokens_BT.numel()
        assert cost <= budget or len(batch) == 1
        seen += batch
        step += 1
    assert Counter(seen) == Counter(rows)
    fresh = Budgeted(Blend([rows], [1.0], seed=seed, what="turn"), budget, packing=packing)
    assert fresh.at(step + 1) == budgeted.at(step + 1)
    assert fresh.at(0) == budgeted.at(0)


def test_a_prompt_longer_than_the_context_is_left_out_or_refused() -> None:
    said: list[str] = []
    rows = [Question("short", ""), Question("long " * 20, "")]
    fitting = Fitting(template(), 32, False, said.append)
    assert [prompt.row.prompt for prompt in fitting.prompts(rows, Length("rl.response_tokens", 10))] == ["short"]
    assert "1 of 2 rows skipped: longer than the context of 32 tokens" in said[0]
    strict, told = Fitting(template(), 32, True, quiet), "need more than the model's context"
    for of, tokens in ((strict, 10), (fitting, 40)):
        with pytest.raises(RowsError, match=rf"{told}.*shorten them, lower eval\.response_tokens, or take"):
            of.prompts(rows, Length("eval.response_tokens", tokens))
    with pytest.raises(RowsError, match=rf"{told}.*shorten them, or take"):
        fitting.responses([Response("long " * 20, "")])


def test_a_look_at_rows_ends_at_the_first_that_fits_but_where_none_may_be_left_out() -> None:
    rows = [Response("long " * 20, ""), Response("short", ""), Response("never looked at " * 20, "")]
    seen: list[str] = []

    def responses(rows: Sequence[Response]) -> list[Turn]:
        seen.extend(row.prompt[:5] for row in rows)
        return Fitting(template(), 32, False, quiet).responses(rows)

    Fitting(template(), 32, False, quiet).check(rows, responses)
    assert seen == ["long ", "short"]
    strict = Fitting(template(), 32, True, quiet)
    with pytest.raises(RowsError, match="2 of 3 rows need more"):
        strict.check(rows, strict.responses)
