"""Everything that is stored comes back as it was."""

import dataclasses
import json
import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandem.core.errors import StoreError
from tandem.estimate import corun, profile
from tandem.share import events, model
from tandem.share.codec import from_json, to_json
from tandem.share.model import After, Gpu, Job, JobClass, Need, Node, Part, State

CLASSES = [
    cls
    for module in (model, events, corun, profile)
    for cls in vars(module).values()
    if isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__ == module.__name__
]

numbers = st.floats(allow_nan=False, width=64)
st.register_type_strategy(float, numbers)
finite = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(
    profile.Curve,
    st.lists(st.tuples(finite, finite), min_size=1).map(
        lambda points: profile.Curve(
            tuple(float(i) for i in range(len(points) + 1)),
            (1.0, *(slow for slow, _ in points)),
            (0.0, *(half for _, half in points)),
        )
    ),
)
st.register_type_strategy(
    profile.PhaseProfile,
    st.builds(
        profile.PhaseProfile,
        sensitivity=st.dictionaries(st.text(), st.from_type(profile.Curve)),
        pressure=st.dictionaries(st.text(), numbers),
        pressure_half=st.dictionaries(st.text(), numbers),
    ),
)
_OF_PROFILE = typing.get_type_hints(profile.Profile)
del _OF_PROFILE["between"]  # two more of them; see tests/estimate/profiling/test_contradictions.py
st.register_type_strategy(
    profile.Profile, st.builds(profile.Profile, **{name: st.from_type(hint) for name, hint in _OF_PROFILE.items()})
)


def test_all_of_events_and_model_is_covered() -> None:
    assert {events.Submitted, events.Profiled, events.StartJob, model.Job, model.Quote, corun.CoRun} <= set(CLASSES)
    assert len({cls.__name__ for cls in CLASSES}) == len(CLASSES), "the name in a log says which class it is"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@given(data=st.data())
@settings(max_examples=25)
def test_every_class_comes_back(cls: type, data: st.DataObject) -> None:
    value = data.draw(st.from_type(cls))
    text = json.dumps(to_json(value), allow_nan=False)
    back = from_json(json.loads(text))
    assert back == value
    assert type(back) is cls
    assert json.dumps(to_json(back), allow_nan=False) == text, "and it is stored alike again"


def test_a_job_in_full() -> None:
    job = Job(
        7,
        (Part(Need(2000, 5, gpus=1, labels=frozenset({"b", "a"})), 2), Part(Need())),
        name='quotes " \n \U0001f600 \ud800',
        klass=JobClass.HARVEST,
        limit_s=1e9,
        after=(After(1), After(2, ok=False)),
        array=(3, 4),
        checkpoint="SIGUSR1",
    )
    stored = to_json(job)
    assert stored["is"] == "Job"
    assert stored["klass"] == "harvest"
    assert "retries" not in stored, "what has its default is left out"
    back = from_json(json.loads(json.dumps(stored)))
    assert back == job
    assert isinstance(back.klass, JobClass)
    assert isinstance(back.parts, tuple)
    assert isinstance(back.parts[0].need.labels, frozenset)
    assert isinstance(back.array, tuple)


def test_types_are_those_of_the_class() -> None:
    node = Node("a", 1, 2, (Gpu(0, "x"),), cores=(0, 1), numa=(0, 0), labels=frozenset({"l"}))
    back = from_json(json.loads(json.dumps(to_json(node))))
    assert isinstance(back.cores, tuple)
    assert isinstance(back.gpus[0], Gpu)
    ended = from_json(to_json(events.JobEnded(1, State.LOST, "w")))
    assert ended.state is State.LOST


def test_infinities_are_valid_json() -> None:
    reserve = events.Reserve(1, float("inf"), ("a",))
    assert from_json(json.loads(json.dumps(to_json(reserve), allow_nan=False))) == reserve


@pytest.mark.parametrize(
    ("stored", "word"),
    [
        ({"is": "Sumbitted"}, "Sumbitted"),
        ({"is": "Started", "job": 1, "attempt": 1, "mood": "good"}, "with mood"),
        ({"is": "Started", "job": 1}, "without attempt"),
        ({}, "None"),
        ("Tick", "Tick"),
    ],
)
def test_what_is_half_understood_is_refused(stored: object, word: str) -> None:
    with pytest.raises(StoreError, match=word):
        from_json(stored)
