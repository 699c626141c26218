import math
import string
import tomllib
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from tandem.core.config import dump, load, of_table, with_overrides
from tandem.core.errors import ConfigError


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    cpus: Annotated[int, Field(ge=1)] = 1
    memory_bytes: int | None = None
    memory_mib: float = 0.0
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Loop:
    steps: int
    timeout_s: float | None = None
    rates: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Study:
    loop: Loop
    seed: int = 0
    label: str = "x"
    kind: Literal["primary", "harvest"] = "harvest"
    colour: Colour = Colour.RED
    deep: bool = False
    folder: Path = Path("runs")
    waits_s: tuple[float, ...] = ()
    parts: list[Part] = field(default_factory=list)
    by_name: dict[str, Part] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.seed == 13:
            message = "seed must not be 13"
            raise ValueError(message)


floats = st.floats(allow_nan=False)
texts = st.text(max_size=12) | st.sampled_from(["\x7f", '"', "\\", "a\nb\r\t\x00", "é€😀", "", "a.b", "'''"])
parts = st.builds(
    Part,
    name=texts,
    cpus=st.integers(1, 10**20),
    memory_bytes=st.none() | st.integers(0, 2**70),
    memory_mib=floats,
    tags=st.lists(texts, max_size=3).map(tuple),
)
loops = st.builds(Loop, steps=st.integers(), timeout_s=st.none() | floats, rates=st.lists(floats, max_size=3))
studies = st.builds(
    Study,
    loop=loops,
    seed=st.integers().filter(lambda seed: seed != 13),
    label=texts,
    kind=st.sampled_from(["primary", "harvest"]),
    colour=st.sampled_from(Colour),
    deep=st.booleans(),
    folder=st.text(string.ascii_letters + ' "/', min_size=1, max_size=9).map(Path),
    waits_s=st.lists(floats, max_size=2).map(tuple),
    parts=st.lists(parts, max_size=3),
    by_name=st.dictionaries(texts, parts, max_size=2),
    weights=st.dictionaries(texts, floats, max_size=2),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text('seed = 3\n[loop]\nsteps = 10\n[[parts]]\nname = "a"\n[[parts]]\nname = "b"\ncpus = 2\n')
    return path


def message(path: Path | None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(Study, path, overrides)
    return str(caught.value).replace(str(path), "FILE")


@given(studies)
def test_what_is_dumped_is_loaded(tmp_path_factory: pytest.TempPathFactory, study: Study) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(dump(study), encoding="utf-8", newline="\n")
    assert load(Study, path) == study


def test_not_a_number_is_dumped_and_loaded(tmp_path: Path) -> None:
    text = dump(Loop(steps=1, rates=[math.nan, math.inf]))
    assert [str(rate) for rate in tomllib.loads(text)["rates"]] == ["nan", "inf"]


def test_a_file(file: Path) -> None:
    parts = [Part(name="a"), Part(name="b", cpus=2)]
    assert load(Study, file) == Study(seed=3, loop=Loop(steps=10), parts=parts)


def test_a_check_after_loading_names_the_override_that_it_refuses(file: Path) -> None:
    def read(overrides: tuple[str, ...]) -> Study:
        study = load(Study, file, overrides)
        if study.loop.steps < 1 or study.seed < 0:
            raise ConfigError(given=f"FILE: seed = {study.seed}", allowed="0 or more", todo="correct it")
        return study

    def given(*overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            with_overrides(read, overrides)
        return caught.value.given

    assert with_overrides(read, ["seed=1"]).seed == 1
    assert given("label=x", "seed=-1", "loop.steps=3") == "--set seed=-1: FILE: seed = -1"
    assert given("sed=1") == "--set sed=1: unknown key 'sed'"
    file.write_text("seed = -1\n[loop]\nsteps = 1\n")
    assert given("label=x") == "FILE: seed = -1"


def test_of_several_overrides_those_to_blame_are_named(tmp_path: Path) -> None:
    """Not one that mends the file: without it something else is refused, before this."""
    path = tmp_path / "bad.toml"

    def read(overrides: tuple[str, ...]) -> Study:
        study = load(Study, path, overrides)
        broken = [f"{key} from 0" for key, number in (("seed", study.seed), ("steps", study.loop.steps)) if number < 0]
        if broken:
            raise ConfigError(given="FILE: does not fit", allowed="; ".join(broken), todo="correct it")
        return study

    def blamed(*overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            with_overrides(read, overrides)
        return caught.value.given.partition(": ")[0]

    path.write_text("label = 3\n[loop]\nsteps = 1\n")
    assert blamed("label=x", "loop.steps=-1") == "--set loop.steps=-1"
    assert blamed("label=x", "seed=-1", "loop.steps=-1") == "--set seed=-1 --set loop.steps=-1"
    path.write_text("label = 3\n[loop]\nsteps = -1\n")
    assert blamed("label=x", "seed=-1") == "--set seed=-1"
    path.write_text("[loop]\nsteps = 1\n")
    assert blamed("seed=-1", "seed=-1") == "--set seed=-1 --set seed=-1"


def test_without_a_file_the_overrides_are_all() -> None:
    assert load(Study, None, ["loop.steps=2"]) == Study(loop=Loop(steps=2))


@pytest.mark.parametrize(
    ("override", "changes"),
    [
        ("seed=4", {"seed": 4}),
        (" seed = 4 ", {"seed": 4}),
        ("label=hello there", {"label": "hello there"}),
        ('label="quoted"', {"label": "quoted"}),
        ("label=3", {"label": "3"}),
        ("label=a=b", {"label": "a=b"}),
        ("label=1\nseed=9", {"label": "1\nseed=9"}),
        ("deep=true", {"deep": True}),
        ("colour=blue", {"colour": Colour.BLUE}),
        ("folder=/tmp/x", {"folder": Path("/tmp/x")}),
        ('waits_s=["1m", 2]', {"waits_s": (60.0, 2.0)}),
        ("loop.steps=7", {"loop": Loop(steps=7)}),
        ("loop.timeout_s=90", {"loop": Loop(steps=10, timeout_s=90)}),
        ('loop.timeout_s="90"', {"loop": Loop(steps=10, timeout_s=90)}),
        ("loop.timeout_s=5m", {"loop": Loop(steps=10, timeout_s=300)}),
        ("loop.timeout_s=1:30:00", {"loop": Loop(steps=10, timeout_s=5400)}),
        (
            "parts.1.memory_bytes=4G",
            {"parts": [Part(name="a"), Part(name="b", cpus=2, memory_bytes=4 << 30)]},
        ),
        ("parts.0.memory_mib=2G", {"parts": [Part(name="a", memory_mib=2048), Part(name="b", cpus=2)]}),
        ("parts.0.name=7", {"parts": [Part(name="7"), Part(name="b", cpus=2)]}),
        ("by_name.x.name=y", {"by_name": {"x": Part(name="y")}}),
        ("weights.w=1.5", {"weights": {"w": 1.5}}),
        ("weights.3=1.5", {"weights": {"3": 1.5}}),
    ],
)
def test_overrides(file: Path, override: str, changes: dict[str, object]) -> None:
    assert load(Study, file, [override]) == replace(load(Study, file), **changes)  # type: ignore[arg-type]


def test_the_last_override_wins(file: Path) -> None:
    assert load(Study, file, ["seed=4", "seed=5"]).seed == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sed = 1", "FILE: unknown key 'sed'; allowed: loop, seed, label"),
        ("sed = 1", "did you mean 'seed'?"),
        (
            "[loop]\nsteps = 1\nstep = 2",
            "unknown key 'loop.step'; allowed: loop.steps, loop.timeout_s, loop.rates",
        ),
        ("[loop]\nsteps = 1\nstep = 2", "did you mean 'loop.steps'?"),
        ("steps = 1", "did you mean 'loop.steps'?"),
        ("[loop]\nsteps = 1\n[[parts]]\nname = 'a'\ncpu = 2", "did you mean 'parts.0.cpus'?"),
        ("[loop]\nsteps = 1\n[by_name.x]\nnam = 'a'", "did you mean 'by_name.x.name'?"),
        (
            "[loop]\nsteps = 1\n[[parts]]\ncpus = 2",
            "FILE: 'parts.0.name' is missing; allowed: it has no default",
        ),
        ("seed = 1", "FILE: 'loop' is missing"),
        ("loop = 3", "FILE: loop = 3; allowed:"),
        ("[loop]\nsteps = 1.5", "FILE: loop.steps = 1.5; allowed: a whole number;"),
        (
            "[loop]\nsteps = 'a'\nrates = ['b']",
            "correct loop.steps; also loop.rates.0 = 'b' (a number)",
        ),
        (
            "[loop]\nsteps = 1\n[[parts]]\ncpus = 0\n[[parts]]",
            "or --set parts.0.name=...; also parts.0.cpus = 0 (1 or more), 'parts.1.name' is missing",
        ),
        ("[loop]\nsteps = 1" + "\n[[parts]]" * 8, "'parts.5.name' is missing and 2 more"),
        (
            "kind = 'first'\n[loop]\nsteps = 1",
            "kind = 'first'; allowed: 'primary' or 'harvest';",
        ),
        ("[loop]\nsteps = 1\ntimeout_s = '5 parsecs'", "loop.timeout_s = '5 parsecs'; allowed: 90s, 5m"),
        (
            "[loop]\nsteps = 1\n[[parts]]\nname = 'a'\nmemory_bytes = '4X'",
            "parts.0.memory_bytes = '4X'; allowed: a number of bytes",
        ),
        (
            "[loop]\nsteps = 1\n[[parts]]\nname = 'a'\ncpus = 0",
            "parts.0.cpus = 0; allowed: 1 or more;",
        ),
        ("seed = 13\n[loop]\nsteps = 1", "seed must not be 13"),
        ("seed = = 1", "FILE: Invalid value (at line 1, column 8); allowed: TOML in UTF-8"),
        ("seed = 1\nseed = 2", "FILE: Cannot overwrite a value"),
    ],
)
def test_errors_point_at_the_key(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert expected in message(path)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("loop.stepps=3", "--set loop.stepps=3: unknown key 'loop.stepps'"),
        (
            "loop.steps=many",
            "--set loop.steps=many: loop.steps = 'many'; allowed: a whole number;",
        ),
        ("loop=3", "--set loop=3: loop = 3; allowed: a table;"),
        ("loop.steps=1e30", "loop.steps = 1e+30; allowed: a whole number, and a smaller one;"),
        ("loop.rates=3", "loop.rates = 3; allowed: a list, in [ ];"),
        ("deep=maybe", "deep = 'maybe'; allowed: true or false;"),
        ("weights=3", "weights = 3; allowed: a table;"),
        ("loop.steps", "--set loop.steps; allowed: KEY=VALUE"),
        ("=3", "allowed: KEY=VALUE"),
        ("a..b=3", "allowed: KEY=VALUE"),
        ("seed.x=3", "--set seed.x=3: there is no 'x'"),
        ("parts.2.cpus=1", "--set parts.2.cpus=1: there is no 2; allowed: items 0 to 1"),
        ("parts.x.cpus=1", "there is no 'x'; allowed: items 0 to 1"),
        ("0=1", "unknown key '0'"),
    ],
)
def test_errors_point_at_the_override(file: Path, override: str, expected: str) -> None:
    assert expected in message(file, override)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert message(tmp_path / "none.toml").startswith("FILE: No such file or directory; allowed: a readable TOML")
    assert "Is a directory" in message(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'label = "\xe9"')
    assert "allowed: TOML in UTF-8" in message(tmp_path / "latin.toml")


def test_none_is_refused_where_leaving_it_out_would_mean_something_else() -> None:
    @dataclass(frozen=True)
    class Limit:
        jobs: int | None = 3

    with pytest.raises(ValueError, match="jobs is None"):
        dump(Limit(None))
    assert dump(Limit(4)) == "jobs = 4\n"


def test_what_has_no_form_in_toml_is_refused() -> None:
    @dataclass(frozen=True)
    class Odd:
        value: object

    with pytest.raises(TypeError, match="complex has no form in TOML"):
        dump(Odd(1j))


def test_all_that_is_wrong_with_the_keys_of_a_table_is_told_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('name = "x"\nsed = 1\nzzzz = 2')
    told = message(path)
    assert told.startswith("FILE: unknown key 'name'; allowed: loop, seed")
    assert told.endswith(
        "did you mean 'parts.0.name'?; also unknown key 'sed' (did you mean 'seed'?), unknown key 'zzzz', "
        "'loop' is missing"
    )


def test_a_table_that_was_read_already_is_checked_like_a_file() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Settings:
        rate: float
        timeout_s: float = 1.0

    assert of_table(Settings, {"rate": 0.5, "timeout_s": "5m"}, "[settings]") == Settings(rate=0.5, timeout_s=300.0)
    for values, told in (
        ({"rat": 0.5}, "[settings]: unknown key 'rat'; allowed: rate, timeout_s; did you mean 'rate'?"),
        ({"rate": "fast"}, "[settings]: rate = 'fast'"),
        ({}, "[settings]: 'rate' is missing"),
    ):
        with pytest.raises(ConfigError) as error:
            of_table(Settings, values, "[settings]")
        assert told in str(error.value)
