"""From what a user writes to jobs: one mapping becomes one job, or an array of them, with its launch.

    {"argv": ["python", "train.py"], "cpus": 4, "gpus": "0.5", "mem": "8G", "time": "2h", "class": "harvest"}

Units follow Slurm where the value is text: a bare number is minutes in `time`, `expected` and `grace`, MiB in `mem` and
`gpu_mem`, MB/s in `membw` and `nic`. A duration that is a number (not text) is in seconds. Every mistake is an error
that names the key.
"""

import hashlib
import re
import shlex
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from tandem.core.errors import ConfigError, PermissionRefusedError, QuantityError
from tandem.core.nearest import did_you_mean
from tandem.core.units import human_duration, parse_duration, parse_size
from tandem.share.model import LONGEST_S, After, Job, JobClass, Need, Part
from tandem.share.node.launch import THREAD_COUNTS, Launch

NEED_KEYS = ("cpus", "gpus", "gpu_mem", "mem", "membw", "nic", "nodes", "labels")
KEYS = (
    "name",
    "app",
    "argv",
    "cwd",
    "env",
    *NEED_KEYS,
    "parts",
    "class",
    "max_slowdown",
    "time",
    "expected",
    "after",
    "array",
    "retries",
    "priority",
    "hold",
    "checkpoint",
    "grace",
    "stdout",
    "stderr",
)
ARRAY_MOST = 100_000
NAME_LONGEST = 256
_NUMBER_MOST = 1e9
_INDEX_END = 10**18
_SIZE_MOST = 1 << 60
APP_LONGEST = 80
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
_SHELL = re.compile(r"(?:ba|da|z|k|mk|fi|c|tc)?sh")
_INTERPRETER = re.compile(r"(?:python|pypy|perl|ruby|node|julia|Rscript|lua)[0-9.]*")
_CODE = {"python": "c", "pypy": "c", "perl": "eE", "ruby": "e", "node": "ep", "julia": "eE", "Rscript": "e", "lua": "e"}
_WORD_FOLLOWS = {"-X", "-W", "-I", "-r", "-L", "-J", "--rcfile", "--init-file", "-o", "+o", "-O", "+O"}
_OF_AN_ARRAY = ("TANDEM_ARRAY_ID", "TANDEM_ARRAY_INDEX")


@dataclass(frozen=True, slots=True)
class Submitter:
    """Who submits, and the surroundings that their jobs inherit.

    Attributes:
        trusted: May raise priorities (root, or the owner of a daemon of their own).
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    umask: int = 0o022
    cwd: str = "/"
    environ: Mapping[str, str] | None = None
    trusted: bool = True

    def inherited(self) -> dict[str, str]:
        """Return the environment without what each job has of its own: numbers of threads and a place in an array."""
        own = {*THREAD_COUNTS, *_OF_AN_ARRAY}
        return {key: value for key, value in (self.environ or {}).items() if key not in own}


def read(
    given: Mapping[str, Any], who: Submitter, environ: Mapping[str, str], first_id: int, folder: str
) -> list[tuple[Job, Launch]]:
    """Turn one submission into its jobs, numbered from `first_id`.

    Args:
        given: What the user wrote.
        who: Who submits.
        environ: `who.inherited()`; one object for a whole batch, so that it is stored once.
        first_id: The first job's id; the others of an array follow.
        folder: The folder of all jobs' own folders.

    Raises:
        ConfigError: An unknown key or a value that does not fit; names the key.
        PermissionRefusedError: A raised priority on a shared daemon.
    """
    _known_keys(given, KEYS, "a submission")
    indices, most = _array(given.get("array"))
    launch = _launch(given, who, environ)
    job = _job(given, launch, who)
    made = []
    for place, index in enumerate(indices):
        job_id = first_id + place
        array = None if given.get("array") is None else (first_id, index or 0)
        after = job.after
        if most and place >= most:  # at most so many at once: each waits for the one that many places before
            after = (*after, After(job_id - most, ok=False))
        made.append((_numbered(job, job_id, array, after), _placed(launch, given, job_id, array, folder)))
    return made


def _numbered(job: Job, job_id: int, array: tuple[int, int] | None, after: tuple[After, ...]) -> Job:
    values = {name: getattr(job, name) for name in Job.__slots__}
    return Job(**{**values, "id": job_id, "array": array, "after": after})


def _placed(
    launch: Launch, given: Mapping[str, Any], job_id: int, array: tuple[int, int] | None, folder: str
) -> Launch:
    """The launch of one element: its folder, outputs and array variables."""
    values = {name: getattr(launch, name) for name in Launch.__slots__}
    run_dir = f"{folder}/{job_id}"
    env = dict(launch.env)
    if array is not None:
        env |= dict(zip(_OF_AN_ARRAY, map(str, array), strict=True))

    def path(key: str, default: str) -> str:
        if given.get(key) is None:
            return default
        text = _text(key, given[key])
        marks = {"%j": str(job_id), "%A": str(array[0] if array else job_id), "%a": str(array[1] if array else 0)}
        marks["%%"] = "%"
        unknown = next((mark for mark in re.findall("%.?", text, re.DOTALL) if mark not in marks), None)
        if unknown is not None:
            raise _wrong(text, key, f"{', '.join(marks)} for a percent sign", f"write %{unknown} if it means itself")
        text = re.sub("%.", lambda match: marks[match[0]], text)
        if text.rpartition("/")[2] in ("", ".", ".."):
            raise _wrong(text, key, "a file's path", "name a file in that folder, or leave it out for the job's own")
        return str(PurePath(launch.cwd) / text)

    stdout = path("stdout", f"{run_dir}/stdout")
    stderr = path("stderr", f"{run_dir}/stderr" if given.get("stdout") is None else stdout)
    return Launch(**{**values, "env": env, "run_dir": run_dir, "stdout": stdout, "stderr": stderr})


def _launch(given: Mapping[str, Any], who: Submitter, environ: Mapping[str, str]) -> Launch:
    argv = given.get("argv")
    if not isinstance(argv, list | tuple) or not argv:
        raise _wrong(argv, "argv", "a list of words, the programme first", "put the command after `--`")
    words = tuple(_text("argv", word) for word in argv)
    if not words[0]:
        raise _wrong(list(words), "argv", "a programme that has a name", "put the command after `--`")
    cwd = str(PurePath(who.cwd) / _text("cwd", given.get("cwd", who.cwd)))
    if not cwd.startswith("/"):
        raise _wrong(cwd, "cwd", "an absolute path", "give the whole path")
    env = given.get("env") or {}
    if not isinstance(env, Mapping):
        raise _wrong(env, "env", "a mapping of names to texts", 'write env = {NAME = "value"}')
    for name in env:
        if not name or "=" in name or "\0" in name:
            raise _wrong(name, "env", "names without '='", "rename the variable")
    explicit = {name: _text(f"env.{name}", str(value)) for name, value in env.items()}
    return Launch(words, cwd, environ, explicit, who.uid, who.gid, who.groups, who.umask)


def _job(given: Mapping[str, Any], launch: Launch, who: Submitter) -> Job:
    name = _text("name", given.get("name") or "")
    if any(0xD800 <= ord(c) <= 0xDFFF for c in name):
        raise _wrong(name[:40], "name", "text in UTF-8", "leave out the bytes that are none")
    if len(name) > NAME_LONGEST:
        raise _wrong(name[:40], "name", f"at most {NAME_LONGEST} characters", "choose a shorter name")
    priority = _whole("priority", given.get("priority", 0), -1_000_000, 1_000_000)
    if priority > 0 and not who.trusted:
        raise PermissionRefusedError(
            given=f"priority {priority} from uid {who.uid}",
            allowed="0 and below on a machine that is shared (root may raise it)",
            todo="leave it out, or lower your other jobs",
        )
    klass = _class(given.get("class", JobClass.PRIMARY.value))
    if klass is JobClass.HARVEST and given.get("max_slowdown") is not None:
        bounded = "a bound for primary jobs; harvest jobs take what is left"
        raise _wrong(given["max_slowdown"], "max_slowdown", bounded, "leave it out, or make the job primary")
    limit_s, expected_s = _seconds("time", given.get("time")), _seconds("expected", given.get("expected"))
    if limit_s is not None and expected_s is not None and expected_s > limit_s:
        todo = "raise the limit, or correct what you expect"
        raise _wrong(given["expected"], "expected", f"at most its limit, {human_duration(limit_s)}", todo)
    app = _text("app", given.get("app") or "")
    return Job(
        id=0,
        parts=_parts(given),
        name=name,
        app=app or name or programme(launch.argv),
        variant=_digest("\0".join(launch.argv)) if app or not name else "",
        uid=who.uid,
        klass=klass,
        max_slowdown=_number("max_slowdown", given.get("max_slowdown", 1.10), 1.0),
        limit_s=limit_s,
        expected_s=expected_s,
        priority=priority,
        after=_after(given.get("after")),
        retries=_whole("retries", given.get("retries", 0), 0, 1000),
        checkpoint=_signal(given.get("checkpoint") or ""),
        grace_s=_grace(given.get("grace")),
        held=bool(given.get("hold", False)),
    )


def programme(argv: Sequence[str]) -> str:
    """Return the application's key in history.

    It is the programme's name, the script's or module's where an interpreter runs one, and the whole command line
    where that is the programme: ``sh -c ...``, ``python -c ...``.

    >>> programme(["/usr/bin/python3", "-u", "train.py", "--fast"]), programme(["./solve", "4"])
    ('train', 'solve')
    >>> programme(["sh", "-c", "sleep 1"])
    "sh -c 'sleep 1'"
    """
    name = PurePath(argv[0]).name or argv[0]  # "." has none
    key = name
    if _SHELL.fullmatch(name):
        key = _script(argv, "c") or name
    elif _INTERPRETER.fullmatch(name):
        key = _script(argv, _CODE[name.rstrip("0123456789.")]) or name
    return _short(key).encode(errors="replace").decode()


def _script(argv: Sequence[str], code: str) -> str:
    """What an interpreter runs: a script's stem, ``-m``'s module, or the whole line where ``-c`` holds the programme.

    Args:
        code: Letters of the options that are followed by the programme itself.
    """
    words = iter(argv[1:])
    for word in words:
        if word == "-m":
            return next(words, "")
        if word in _WORD_FOLLOWS:
            next(words, None)
        elif re.match(rf"-[A-Za-z]*[{code}]", word) or word in ("--eval", "--print"):
            return shlex.join([PurePath(argv[0]).name, *argv[1:]])
        elif not word.startswith(("-", "+")):
            return PurePath(word).stem
    return ""


def _short(key: str) -> str:
    """A long key as its beginning and a digest of the whole."""
    if len(key) <= APP_LONGEST:
        return key
    return f"{key[: APP_LONGEST - 12]}... {_digest(key)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]


def _parts(given: Mapping[str, Any]) -> tuple[Part, ...]:
    parts = given.get("parts")
    if parts is None:
        return (_part(given),)
    if not isinstance(parts, list | tuple) or not parts or not all(isinstance(part, Mapping) for part in parts):
        raise _wrong(parts, "parts", "a list of mappings such as {nodes = 2, cpus = 4}", "write one for each part")
    twice = [key for key in NEED_KEYS if given.get(key) is not None]
    if twice:
        raise _wrong(
            given[twice[0]], twice[0], "demands within the parts, where there are parts", "move it into a part"
        )
    for part in parts:
        _known_keys(part, NEED_KEYS, "a part")
    return tuple(_part(part) for part in parts)


def _part(given: Mapping[str, Any]) -> Part:
    gpus, gpu_milli, gpu_type = _gpus(given.get("gpus") or 0)
    if given.get("gpu_mem") is not None and not (gpus or gpu_milli):
        raise _wrong(
            given["gpu_mem"], "gpu_mem", "the memory of GPUs that are asked for", "ask for GPUs too, or leave it out"
        )
    mem_mib = _size_mib("mem", given.get("mem"))
    if given.get("mem") is not None and not mem_mib:  # elsewhere it means all of a node's
        raise _wrong(given["mem"], "mem", "a size above 0, such as 4G", "name what it takes, or leave it out")
    labels = given.get("labels") or ()
    if not isinstance(labels, str | list | tuple):
        raise _wrong(labels, "labels", "a label, or a list of them", "correct it")
    need = Need(
        cpu_milli=_milli("cpus", given.get("cpus") if given.get("cpus") is not None else 1, 0.001),
        mem_mib=mem_mib,
        membw_mbs=_rate_mbs("membw", given.get("membw")),
        nic_mbs=_rate_mbs("nic", given.get("nic")),
        gpus=gpus,
        gpu_milli=gpu_milli,
        gpu_type=gpu_type,
        gpu_mem_mib=_size_mib("gpu_mem", given.get("gpu_mem")),
        labels=frozenset([labels] if isinstance(labels, str) else map(str, labels)),
    )
    nodes = given.get("nodes")
    return Part(need, 1 if nodes is None else _whole("nodes", nodes, 1, 1_000_000))


def _gpus(value: object) -> tuple[int, int, str]:
    """Whole GPUs, thousandths of one GPU, type: from 2, "0.5" or "h100:2"."""
    kind, colon, count = value.rpartition(":") if isinstance(value, str) else ("", "", value)
    try:
        milli = _milli("gpus", count if colon else value, 0)
    except ConfigError:
        forms = "a number such as 2, a fraction such as 0.5, or TYPE:2"
        raise _wrong(value, "gpus", forms, "correct it; `tandem nodes` shows the types") from None
    if milli % 1000 == 0:
        return milli // 1000, 0, kind.lower()
    if milli > 1000:
        raise _wrong(value, "gpus", "whole GPUs, or a fraction of one", "ask for 0.5, 1, 2, ...")
    return 0, milli, kind.lower()


def _after(given: object) -> tuple[After, ...]:
    """Dependencies: 12 or "12" (it must end well), "12:any" (it must end), a list, or "12,13:any"."""
    if given is None:
        return ()
    items = given if isinstance(given, list | tuple) else str(given).split(",")
    found = []
    for item in items:
        job, _, how = str(item).strip().partition(":")
        if isinstance(item, bool) or not job.isdecimal() or how not in ("", "ok", "any"):
            raise _wrong(item, "after", "a job's id, or ID:any for any end", 'write after = [12, "13:any"]')
        found.append(After(int(job), ok=how != "any"))
    return tuple(found)


def _array(given: object) -> tuple[list[int | None], int]:
    """Indices of an array and how many may run at once (0: all): from "0-9", "1,3,5-8:2%4" or a list."""
    if given is None:
        return [None], 0
    text = ",".join(map(str, given)) if isinstance(given, list | tuple) else str(given)
    text, percent, most = text.partition("%")
    ranges = [_RANGE.fullmatch(part.strip()) for part in text.split(",")]
    if any(match is None for match in ranges) or (percent and not (most.isdecimal() and int(most) > 0)):
        raise _wrong(given, "array", 'indices such as "0-9", "1,3,5-8:2" or "0-99%4"', "correct the indices")
    indices: list[int] = []
    for match in ranges:
        assert match is not None
        low, high, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if high >= _INDEX_END:
            raise _wrong(given, "array", "indices below 10**18", "correct the indices")
        if step == 0 or high < low or (high - low) // step >= ARRAY_MOST:
            raise _wrong(given, "array", f"rising ranges of at most {ARRAY_MOST} elements", "correct the indices")
        indices += range(low, high + 1, step)
        if len(indices) > ARRAY_MOST:
            raise _wrong(given, "array", f"at most {ARRAY_MOST} elements", "submit several arrays")
    twice = next((index for index, count in Counter(indices).items() if count > 1), None)
    if twice is not None:
        raise _wrong(given, "array", f"each index once (here {twice} is there twice)", "leave out what is there twice")
    return [*indices], int(most or 0)


def _class(given: object) -> JobClass:
    try:
        return JobClass(str(given))
    except ValueError:
        names = [klass.value for klass in JobClass]
        raise _wrong(given, "class", ", ".join(names), did_you_mean(str(given), names)) from None


def _signal(given: object) -> str:
    if not given:
        return ""
    name = str(given).upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    if name not in signal.Signals.__members__ or name in ("SIGKILL", "SIGSTOP"):
        raise _wrong(given, "checkpoint", "a signal that can be caught, such as SIGUSR1", "name the signal")
    return name


def _grace(given: object) -> float:
    grace_s = 10.0 if given is None else _duration("grace", given)
    if grace_s > LONGEST_S:
        raise _wrong(given, "grace", "at most ten years", "leave it out for 10 s")
    return grace_s


def _seconds(key: str, given: object) -> float | None:
    if given is None:
        return None
    seconds = _duration(key, given)
    if not 0 < seconds <= LONGEST_S:
        raise _wrong(given, key, "a duration above 0, and at most ten years", "leave it out for none")
    return seconds


def _duration(key: str, given: object) -> float:
    try:
        return parse_duration(given)  # type: ignore[arg-type]  # it refuses what it cannot read
    except QuantityError as error:
        raise _wrong(given, key, error.allowed, error.todo) from None


def _size_mib(key: str, given: object) -> int:
    if given is None:
        return 0
    text = str(given) if isinstance(given, int | float) and not isinstance(given, bool) else given
    return -(-_sized(key, text, 1 << 20) // (1 << 20))


def _rate_mbs(key: str, given: object) -> int:
    if given is None:
        return 0
    text = str(given) if isinstance(given, int | float) and not isinstance(given, bool) else given
    return -(-_sized(key, text.removesuffix("/s") if isinstance(text, str) else text, 10**6) // 10**6)


def _sized(key: str, given: object, bare_unit: int) -> int:
    if not isinstance(given, str):
        raise _wrong(given, key, "a size such as 4G", "give a number with a unit")
    try:
        size = parse_size(given, bare_unit_bytes=bare_unit)
    except QuantityError as error:
        raise _wrong(given, key, error.allowed, error.todo) from None
    if size > _SIZE_MOST:
        raise _wrong(given, key, "at most an exbibyte", "correct it")
    return size


def _milli(key: str, given: object, least: float) -> int:
    return round(1000 * _number(key, given, least))


def _number(key: str, given: object, least: float) -> float:
    try:
        number = float(given) if not isinstance(given, bool) else float("nan")  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not least <= number < _NUMBER_MOST:
        raise _wrong(given, key, f"a number of at least {least:g}, and below a billion", "correct it")
    return number


def _whole(key: str, given: object, least: int, most: int) -> int:
    try:
        number = float(given) if not isinstance(given, bool) else float("nan")  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not least <= number <= most or number != int(number):
        raise _wrong(given, key, f"a whole number from {least} to {most}", "correct it")
    return int(number)


def _text(key: str, given: object) -> str:
    if not isinstance(given, str) or "\0" in given:
        raise _wrong(given, key, "text without NUL characters", "correct it")
    return given


def _known_keys(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(
                given=f"the key {key!r} in {what}", allowed=", ".join(known), todo=did_you_mean(str(key), known)
            )


def _wrong(given: object, key: str, allowed: str, todo: str) -> ConfigError:
    return ConfigError(given=f"{key} = {given!r}", allowed=allowed, todo=todo)
