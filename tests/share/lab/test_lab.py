"""The lab file: what is accepted, and what a mistake in it is answered with."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from tandem.core.errors import ConfigError
from tandem.share.daemon import submission as submissions
from tandem.share.lab import plan as labs

ROOT = Path(__file__).resolve().parents[3]


def write(folder: Path, text: str) -> Path:
    (folder / "apps").mkdir(exist_ok=True)
    (folder / "apps" / "solve.py").write_text("print('ok')\n")
    path = folder / "lab.toml"
    path.write_text(text)
    return path


GOOD = """
title = "a day"
[[jobs]]
name = "first"
app = "solve"
max_slowdown = 1.2
[[jobs]]
name = "second"
argv = ["true"]
at_s = 3.0
after = ["first"]
"""


def test_the_example_is_a_hybrid_day() -> None:
    lab = labs.load(ROOT / "examples" / "lab.toml")
    assert len(lab.jobs) >= 12
    assert len({job.app for job in lab.jobs}) >= 8
    assert sum(job.max_slowdown is not None for job in lab.jobs) >= 3
    assert {"stream", "stencil"} <= {job.app for job in lab.jobs}
    assert lab.policies == ("exclusive", "share", "backfill", "hybrid")


@pytest.mark.parametrize(("table", "heading"), [(labs.Lab, "key of the day"), (labs.LabJob, "key of one of the")])
def test_the_reference_names_every_key_and_says_which_are_required(table: type, heading: str) -> None:
    page = (ROOT / "docs" / "reference" / "lab.md").read_text()
    rows = page.split(f"| {heading}")[1].split("\n\n")[0].splitlines()[2:]
    told = {}
    for row in rows:
        keys, default = row.split("|")[1:3]
        told |= dict.fromkeys(re.findall(r"`(\w+)`", keys), default.strip())
    there = dataclasses.fields(table)
    assert set(told) == {field.name for field in there} - {"jobs"}
    required = {field.name for field in there if field.default is dataclasses.MISSING} - {"jobs"}
    assert {key for key, default in told.items() if default == "required"} == required
    assert all(told.values())


def test_jobs_become_submissions(tmp_path: Path) -> None:
    lab = labs.load(write(tmp_path, GOOD), ("scale=0.5",))
    first, second = labs.in_order(lab)
    asked = labs.submission(lab, first, {}, gpus_here=0, cwd=tmp_path)
    assert asked["argv"][1:] == [str(tmp_path / "apps" / "solve.py"), "--scale", "0.5"]
    assert (asked["class"], asked["max_slowdown"], asked["app"], asked["name"]) == ("primary", 1.2, "solve", "first")
    asked = labs.submission(lab, second, {"first": 7}, gpus_here=0, cwd=tmp_path)
    assert (asked["class"], asked["after"], asked["argv"]) == ("harvest", ["7"], ["true"])


def test_a_jobs_scale_multiplies_the_days(tmp_path: Path) -> None:
    twice = GOOD.replace('app = "solve"', 'app = "solve"\nscale = 2')

    def words(*overrides: str) -> list[str]:
        lab = labs.load(write(tmp_path, twice), overrides)
        return list(labs.submission(lab, lab.jobs[0], {}, gpus_here=0, cwd=tmp_path)["argv"][2:])

    assert words() == ["--scale", "2"]
    assert words("scale=0.3") == ["--scale", "0.6"]
    assert words("scale=0.5") == [], "once the standard amount needs no saying"
    assert words("scale=0.5", "jobs.0.scale=3") == ["--scale", "1.5"]


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "inf", "1e-400"])
@pytest.mark.parametrize("key", ["scale", "jobs.0.scale"])
def test_a_scale_is_above_nothing_and_finite(tmp_path: Path, key: str, scale: str) -> None:
    with pytest.raises(ConfigError, match="a finite number above 0"):
        labs.load(write(tmp_path, GOOD), (f"{key}={scale}",))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("at_s", ("nan", "-1", "inf", "-inf")),
        ("time_s", ("nan", "0", "-1", "inf")),
        ("max_slowdown", ("nan", "0.5", "inf")),
        ("gpus", ("nan", "-1", "inf")),
        ("mem_mib", ("-1",)),
    ],
)
def test_what_is_no_amount_or_instant_is_refused_by_name(tmp_path: Path, key: str, values: tuple[str, ...]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=f"job 'second': {key} = {value}; allowed: "):
            labs.load(write(tmp_path, GOOD), (f"jobs.1.{key}={value}",))


def test_a_long_time_limit_arrives_as_it_was_said(tmp_path: Path) -> None:
    lab = labs.load(write(tmp_path, GOOD), ("jobs.1.time_s=1234567.5",))
    asked = labs.submission(lab, lab.jobs[1], {"first": 1}, gpus_here=0, cwd=tmp_path)
    [(job, _)] = submissions.read(asked, submissions.Submitter(0, 0), {}, 2, "/")
    assert job.limit_s == 1234567.5


def test_scales_whose_product_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a finite number above 0"):
        labs.load(write(tmp_path, GOOD), ("scale=1e-200", "jobs.0.scale=1e-200"))


def test_a_whole_command_line_has_no_scale(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scale = 2 with argv"):
        labs.load(write(tmp_path, GOOD), ("jobs.1.scale=2",))


def test_a_job_takes_a_gpu_where_there_is_one(tmp_path: Path) -> None:
    lab = labs.load(write(tmp_path, GOOD.replace('app = "solve"', 'app = "solve"\nif_gpu = true')))
    assert "gpus" not in labs.submission(lab, lab.jobs[0], {}, gpus_here=0, cwd=tmp_path)
    assert labs.submission(lab, lab.jobs[0], {}, gpus_here=2, cwd=tmp_path)["gpus"] == 1


def test_a_day_without_some_applications_drops_dependencies_on_them(tmp_path: Path) -> None:
    lab = labs.without(labs.load(write(tmp_path, GOOD)), {"solve"})
    assert [(job.name, job.after) for job in lab.jobs] == [("second", ())]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('app = "solve"', 'app = "solver"'), "solve"),
        (('name = "second"', 'name = "first"'), "unique"),
        (('name = "second"', 'name = ""'), "jobs.1.name = ''; allowed: a name"),
        (('name = "second"', 'name = " "'), "jobs.1.name = ' '; allowed: a name"),
        ((GOOD, 'title = "a day"\njobs = []'), "jobs = []; allowed: one job or more"),
        (('argv = ["true"]', ""), "app or argv"),
        (('after = ["first"]', 'after = ["frist"]'), "first, second"),
        (("max_slowdown = 1.2", "max_slowdown = 0.9"), "1 or more"),
        (("max_slowdown = 1.2", "max_slowdwon = 1.2"), "max_slowdown"),
        (("max_slowdown = 1.2", 'max_slowdown = 1.2\nafter = ["second"]'), "circle"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        labs.load(write(tmp_path, GOOD.replace(*change)))
    assert said in str(caught.value)


def test_mistakes_of_several_jobs_are_named_together(tmp_path: Path) -> None:
    wrong = 'title = "a day"\n' + "".join(f'[[jobs]]\nname = "j{k}"\napp = "no{k}"\n' for k in range(7))
    with pytest.raises(ConfigError) as caught:
        labs.load(write(tmp_path, wrong))
    said = str(caught.value)
    assert [f"job 'j{k}'" in said for k in range(7)] == [True] * 5 + [False] * 2
    assert said.endswith(" and 2 more")
