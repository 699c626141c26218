"""`tandem data`: pack many files into a space, look into it, check it, change it, and get files out of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tandem.cli.group import Nouns
from tandem.cli.terminal import json_option, print_json, progress, put, say, say_err, say_pairs, shell_name
from tandem.core.durable import FULL, naming
from tandem.core.errors import without_secrets
from tandem.core.interrupts import counted_once, heard_sigterm
from tandem.core.units import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tandem.data.pack.packing import Packed
    from tandem.data.space import Space
    from tandem.data.space.exporting import LeftOut
    from tandem.data.space.index import Sample
    from tandem.data.space.scrub import Finding

_SHOWN_OF_A_FILE = 10


_LEAST_SHARD_BYTES = 64 << 10
"""Smaller ones would be the small files again that a space is to do away with."""


@click.group(cls=Nouns, subcommand_metavar="COMMAND ...", no_args_is_help=False, invoke_without_command=True)
@click.pass_context
def data(ctx: click.Context) -> None:
    """Many small files as one fast, checked, seekable space.

    \b
    tandem data pack images/ images.space
    tandem data ls images.space cats/
    tandem data cat images.space cats/1.png > 1.png
    tandem data scrub images.space
    """
    ctx.call_on_close(counted_once())  # Ctrl-C
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@data.command()
@click.option("--append", is_flag=True, help="Add to a space that is there already.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes. [as many as cores]")
@click.option("--shard-size", metavar="SIZE", default="256M", show_default=True, help="About how large shards become.")
@click.option(
    "--parity",
    type=click.IntRange(1, 4),
    metavar="N",
    help="Parity, 1 to 4, also of what SPACE has: N of 28 blocks can be restored.",
)
@json_option
@click.argument("source")
@click.argument("space")
def pack(
    append: bool, workers: int | None, shard_size: str, parity: int | None, as_json: bool, source: str, space: str
) -> None:
    """Pack all files of SOURCE into SPACE.

    SOURCE is a folder, a .tar or .zip file, a pattern of .tar files in quotes, or a URL of files or of an archive that
    fsspec reads. Relative paths, sizes, times and modes (from URLs, where fsspec tells them) are kept. Run it again
    after it was killed, and it goes on where it was.

    \b
    tandem data pack images/ images.space
    tandem data pack 'shards/*.tar' web.space
    tandem data pack --append s3://bucket/more images.space
    """
    from tandem.data.pack.packing import pack as run

    cores = len(os.sched_getaffinity(0))
    there: list[str] = []

    def is_there(generation: int) -> None:
        there.append(f"interrupted, but all is packed: {space} is at generation {generation}")

    try:
        with heard_sigterm():
            with progress("bytes", quiet=as_json) as tell:
                done = run(
                    source,
                    space,
                    append=append,
                    workers=workers or cores,
                    shard_bytes=_shard_bytes(shard_size),
                    parity=parity or 0,
                    tell=lambda now, of: tell("packing", now, of),
                    broken_off_at=is_there,
                )
            is_there(done.generation)
            _say_packed(done, source, space, as_json=as_json)
    except (KeyboardInterrupt, SystemExit) as end:
        again = "interrupted; run it again, and it goes on where it was"
        say_err(there[0] if there else again)
        if isinstance(end, SystemExit):
            raise
        raise click.Abort from None  # click would print another line for KeyboardInterrupt


def _say_packed(done: Packed, source: str, space: str, *, as_json: bool) -> None:
    from tandem.core.units import human_size

    if as_json:
        print_json({field: getattr(done, field) for field in done.__dataclass_fields__})
        return
    again = f", {done.resumed_files:,} of them by an earlier run" if done.resumed_files else ""
    what = f"{counted(done.files, 'file')}, {human_size(done.data_bytes)}{again}"
    say(f"{what}; {space} is at generation {done.generation}")
    if not done.files:
        say_err(f"no file was packed: there is none in {source}")
    for kind, count in done.left_out.items():
        say_err(f"left out: {count:,} x {kind}")


@data.command()
@click.option("-l", "--long", is_flag=True, help="Number, size, time and mode of each.")
@json_option
@click.argument("space")
@click.argument("prefix", default="")
def ls(long: bool, as_json: bool, space: str, prefix: str) -> None:
    """Paths in SPACE that begin with PREFIX, in order.

    Where none does, standard error says so. What cannot be printed in a path is written as $'...', as shells read it.
    """
    with _opened(space) as opened:
        _is_any_under(opened, prefix)
        numbers = opened.under(prefix)
        if as_json:
            print_json([_described(opened.stat(number)) for number in numbers])
        elif long:
            for number in numbers:
                say(_line(opened.stat(number)))
        else:
            for number in numbers:
                say(shell_name(opened.path(number)))


@data.command()
@json_option
@click.argument("space")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
def cat(as_json: bool, space: str, paths: tuple[str, ...]) -> None:
    """Bytes of samples, one after another, to standard output.

    With --json: their texts, in base64.
    """
    with _opened(space) as opened:
        numbers = [opened.number(path) for path in paths]
        if as_json:
            from base64 import b64encode

            told = zip(paths, numbers, strict=True)
            print_json([{"path": path, "base64": b64encode(opened.read(number)).decode()} for path, number in told])
            return
        for number in numbers:
            for content in opened.pieces(number):
                with naming("standard output", only=FULL):
                    put(content)
                    sys.stdout.buffer.flush()


@data.command()
@json_option
@click.argument("space")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
def stat(as_json: bool, space: str, paths: tuple[str, ...]) -> None:
    """What SPACE holds, or all about the samples with these paths."""
    with _opened(space) as opened:
        if paths:
            told = [_described(opened.stat(opened.number(path))) for path in paths]
            if as_json:
                print_json(told)
            else:
                _show_pairs(told)
            return
        summary = _summary(opened)
    if as_json:
        print_json(summary)
    else:
        _show_pairs([summary])


@data.command()
@json_option
@click.option("--prefix", default="", metavar="PREFIX", help="Only paths that begin so.")
@click.argument("space")
@click.argument("folder")
def export(as_json: bool, prefix: str, space: str, folder: str) -> None:
    """Write samples of SPACE as files below FOLDER.

    Sizes, times and modes are those that were packed, without setuid, setgid and sticky bits. What is there with the
    very bytes stays, so one that was broken off goes on; nothing is written over. What is damaged, or has something
    else in its place, is named and left out. Exit status 1 if anything was, or if no path begins with the prefix.
    """
    from tandem.core.errors import DataError
    from tandem.data.space.exporting import export as run

    damaged: dict[str, str] = {}
    not_written: dict[str, str] = {}
    with _opened(space) as opened, progress("files", quiet=as_json) as tell:
        any_ = _is_any_under(opened, prefix)

        def is_left_out(number: int, error: LeftOut) -> None:
            path = opened.stat(number).path
            if isinstance(error, DataError):
                damaged[path] = error.given
            elif isinstance(error, OSError):
                not_written[path] = f"{error.filename}: {error.strerror}"
            else:
                not_written[path] = error.given

        count = run(opened, folder, prefix, lambda now, of: tell("writing", now, of), is_left_out) if any_ else 0
    if as_json:
        print_json({"files": count, "damaged": damaged, "not_written": not_written})
    elif any_:
        at_url = f"damaged: tandem data scrub {without_secrets(space)}; repair it in its folder, and copy it there"
        _say_left_out(damaged, at_url if "://" in space else f"damaged: tandem data repair {space}")
        _say_left_out(not_written, "impossible to write there")
        say(f"{counted(count, 'file')} in {folder}")
    if damaged or not_written or not any_:
        raise click.exceptions.Exit(1)


@data.command()
@json_option
@click.option("--prefix", metavar="PREFIX", help="All samples whose paths begin so.")
@click.argument("space")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
def delete(as_json: bool, prefix: str | None, space: str, paths: tuple[str, ...]) -> None:
    """Delete samples of SPACE: those with these paths, or all that begin with a prefix.

    Readers that have the space open keep what they have. `tandem data compact` frees the room.
    """
    from tandem.data.space.changing import delete as run

    if prefix == "":
        message = f"an empty --prefix is all of {space}: to remove it as a whole, remove its folder"
        raise click.UsageError(message)
    if not paths and not prefix:
        message = "name paths, or a --prefix"
        raise click.UsageError(message)
    try:
        count = run(space, paths, prefix)
    except OSError:
        say_err(f"nothing was deleted: {space} is as it was")
        raise
    if as_json:
        print_json({"deleted": count})
    else:
        say(f"{counted(count, 'sample')} deleted; to free the room: tandem data compact {space}")


@data.command()
@json_option
@click.argument("space")
def compact(as_json: bool, space: str) -> None:
    """Free the room of deleted samples in SPACE, and join small shards.

    What readers still have open stays, and is freed by the next time once they have closed it.
    """
    from tandem.core.units import human_size
    from tandem.data.space.changing import compact as run

    with progress("bytes", quiet=as_json) as tell:
        done = run(space, tell=lambda now, of: tell("moving", now, of))
    if as_json:
        held = {"held_generations": done.held, "held_bytes": done.held_bytes}
        print_json({"freed_bytes": done.freed_bytes, **held, "unjoined_shards": done.unjoined})
        return
    say(f"{human_size(done.freed_bytes)} freed")
    if done.unjoined:
        say_err(f"{counted(done.unjoined, 'small shard')} not joined, for want of room on the disk of {space}")
    if done.held:
        which = f"generation{'s' * (len(done.held) > 1)} {', '.join(map(str, done.held))}"
        say_err(
            f"readers have {which} open, which need{'s' * (len(done.held) == 1)} {human_size(done.held_bytes)} more; "
            f"once they have closed it, free that by: tandem data compact {space}"
        )


@data.command()
@json_option
@click.argument("space")
def scrub(as_json: bool, space: str) -> None:
    """Check everything in SPACE: the index, every shard, every sample, and the parity of all these.

    Of a space at a URL every shard is fetched, and parity is not checked. Exit status 1 if anything is damaged or
    missing; each is named, but of more than ten samples in one file only the first: --json has all.
    """
    from tandem.data.space.scrub import scrub as run

    with progress("bytes", quiet=as_json) as tell:
        found = [
            one._replace(file=without_secrets(one.file), message=without_secrets(one.message))
            for one in run(space, lambda now, of: tell("checking", now, of))
        ]
    if as_json:
        print_json([one._asdict() for one in found])
    else:
        for line in _named(found):
            say(line)
        say(counted(len(found), "problem") if found else f"{without_secrets(space)}: all is well")
    if found:
        raise click.exceptions.Exit(1)


@data.command()
@json_option
@click.option("--source", metavar="SOURCE", help="What it was packed from: a folder, archive or URL.")
@click.argument("space")
def repair(as_json: bool, source: str | None, space: str) -> None:
    """Put a damaged SPACE right by its parity, and by the source it was packed from.

    From the source only samples are taken that have the bytes that were packed. Exit status 1 if something is still
    damaged; each is named.
    """
    from tandem.data.pack.fetching import fetch_from
    from tandem.data.space.repair import repair as run

    done = run(space, fetch_from(source) if source else None)
    if as_json:
        left = [one._asdict() for one in done.left]
        print_json({"files": done.files, "samples_from_source": done.samples, "left": left})
    else:
        for file in done.files:
            say(f"restored: {file}")
        if done.samples:
            say(f"{counted(done.samples, 'sample')} taken from {without_secrets(source or '')}")
        damaged = [one for one in done.left if one.what != "stray"]
        for line in _named(damaged):
            say(f"still damaged: {line}")
        for one in done.left:
            if one.what == "stray":
                say(one.message)
        if not done.left:
            say(f"{without_secrets(space)}: all is well")
        elif damaged:
            say_err(_way_on(damaged, source, space))
    if done.left:
        raise click.exceptions.Exit(1)


@data.command()
@json_option
@click.option("--limit", metavar="SIZE", help="From now on hold at most so much.")
@click.option("--clear", is_flag=True, help="Let everything go that nobody reads just now.")
def cache(as_json: bool, limit: str | None, clear: bool) -> None:
    """What this node has cached of spaces at URLs.

    The folder is $TANDEM_DATA_CACHE, else ~/.cache/tandem/data.

    \b
    tandem data cache
    tandem data cache --limit 200G
    """
    from tandem.core.units import human_size, parse_size
    from tandem.data.cache.block_cache import BlockCache
    from tandem.data.cache.keeping import cleared, contents, set_limit
    from tandem.data.cache.settings import RemoteSettings

    found = BlockCache(RemoteSettings())
    if limit is not None:
        set_limit(found, parse_size(limit))
    freed = cleared(found) if clear else None
    told = contents(found)
    if as_json:
        print_json({**told, "freed_bytes": freed} if clear else told)
        return
    if freed is not None:
        say(f"{human_size(freed)} freed")
    spaces = told.pop("spaces")
    say_pairs((key, human_size(value) if key.endswith("_bytes") else str(value)) for key, value in told.items())
    for one in spaces:
        say(f"{human_size(one['held_bytes']):>9} of {human_size(one['seen_bytes']):>9}  {one['url']}")


@data.command()
@click.option("--allow-other", is_flag=True, help="Let other users read too, as far as modes allow.")
@click.option("--background", is_flag=True, help="Return once it is mounted; needs --log.")
@click.option("--log", metavar="FILE", help="Where damage is told. [standard error]")
@json_option
@click.argument("space")
@click.argument("mountpoint")
def mount(allow_other: bool, background: bool, log: str | None, as_json: bool, space: str, mountpoint: str) -> None:
    """Show SPACE as a folder of files, read-only, at MOUNTPOINT, an empty folder.

    Until Ctrl-C, or `fusermount3 -u MOUNTPOINT`. What is read is verified; reading what is damaged fails with an
    input/output error, and the log names it. Needs the extra `mount` and the library libfuse.

    \b
    tandem data mount images.space images/
    tandem data mount --background --log mount.log images.space images/
    """
    from tandem.data.mount import mount as run

    if background and log is None:
        message = "with --background, name a --log FILE: it must be told somewhere what is damaged"
        raise click.UsageError(message)
    if log is not None:
        try:
            Path(log).open("a").close()
        except OSError as error:
            message = f"--log {log} cannot be written: {error.strerror}"
            raise click.UsageError(message) from error
    whole_space = space if "://" in space else str(Path(space).absolute())
    whole_mountpoint = str(Path(mountpoint).absolute())

    def told(opened: Space, process: int) -> None:
        if as_json:
            about = {"generation": opened.generation, "samples": len(opened), "process": process}
            print_json({"space": without_secrets(whole_space), "mountpoint": whole_mountpoint, **about})
        else:
            end = f"to unmount it: fusermount3 -u {mountpoint}" if background else "Ctrl-C unmounts it"
            say(f"{without_secrets(space)}, {counted(len(opened), 'file')}, is mounted at {mountpoint}; {end}")
        sys.stdout.flush()

    if background:
        from tandem.core.process.background import begin

        def work(ready: Callable[[], None]) -> None:
            _log_to(None)
            run(whole_space, whole_mountpoint, allow_other=allow_other, ready=lambda _: ready())

        process = begin(work, str(log))
        with _opened(space) as opened:
            told(opened, process)
        return
    _log_to(log)
    run(whole_space, whole_mountpoint, allow_other=allow_other, ready=lambda opened: told(opened, os.getpid()))


def _shard_bytes(text: str) -> int:
    from tandem.core.errors import QuantityError
    from tandem.core.units import parse_size

    size = parse_size(text)
    if size < _LEAST_SHARD_BYTES:
        raise QuantityError(given=f"--shard-size {text}", allowed="64K and more", todo="take 64M to 1G, as a rule")
    return size


def _log_to(file: str | None) -> None:
    """What is worth knowing, to a file or standard error."""
    import logging

    logging.basicConfig(filename=file, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")


def _opened(space: str) -> Space:
    from tandem.data.space import Space

    return Space.open(space)


def _is_any_under(opened: Space, prefix: str) -> bool:
    """Whether paths begin so; where none does, it is said. All begin with nothing, also those of an empty space."""
    if not prefix or opened.index.under(prefix):
        return True
    place = without_secrets(opened.folder)
    say_err(f"no path in {place} begins with {prefix!r}; see what there is: tandem data ls {place}")
    return False


def _say_left_out(found: dict[str, str], why: str) -> None:
    """Name samples that were not exported, of many the first."""
    for path, given in list(found.items())[:_SHOWN_OF_A_FILE]:
        say_err(f"left out: {given if given.startswith('sample') else f'{path}: {given}'}")
    if found:
        say_err(f"{counted(len(found), 'sample')} left out as {why}")


def _way_on(damaged: list[Finding], source: str | None, space: str) -> str:
    """What can be done about what a repair could not put right."""
    what = {one.what for one in damaged}
    if "index" in what:
        anew = f"rm -r {space} and pack the space again"
        return f"no source brings an index back: put it back from a copy, or {anew} from its source"
    if what == {"older"}:
        return f"only readers of older generations need that; to remove those, run: tandem data compact {space}"
    if not what & {"shard", "sample"}:
        return f"move what lies in the place of a file out of {space}, and run this again"
    if source is None:
        return f"what parity does not cover comes from the source: tandem data repair --source SOURCE {space}"
    given = f"{without_secrets(source)} does not have the bytes that were packed of what is still damaged"
    return f"{given}; put the files back from a copy"


def _named(found: list[Finding]) -> Iterator[str]:
    """What is damaged, line by line; of many samples in one file the first."""
    samples: dict[str, int] = {}
    for one in found:
        samples[one.file] = samples.get(one.file, 0) + (one.number is not None)
        if one.number is None or samples[one.file] <= _SHOWN_OF_A_FILE:
            yield one.message
    for file, count in samples.items():
        if count > _SHOWN_OF_A_FILE:
            yield f"{counted(count - _SHOWN_OF_A_FILE, 'more sample')} in {file}; --json names all"


def _described(sample: Sample) -> dict[str, Any]:
    return {
        "number": sample.number,
        "path": sample.path,
        "size_bytes": sample.size,
        "mtime_ns": sample.mtime_ns,
        "mode": f"{sample.mode:06o}",
        "xxh3": f"{sample.checksum:016x}",
        "shard": sample.shard,
        "offset": sample.offset,
    }


def _summary(opened: Space) -> dict[str, Any]:
    from tandem.data.space.guarding import level, weaker
    from tandem.data.space.scrub import unused_bytes

    index = opened.index
    here = opened.home.is_here
    guarded = {"parity": level(index), "less_guarded": len(weaker(index))} if here else {}
    return {
        "space": without_secrets(opened.folder),
        "space_id": opened.space_id,
        "generation": opened.generation,
        "samples": len(opened),
        "data_bytes": opened.data_bytes,
        "shards": len(opened.index.shards),
        "unused_bytes": unused_bytes(opened.folder),
        **guarded,
    }


def _line(sample: Sample) -> str:
    import stat as modes
    from datetime import UTC, datetime

    when = datetime.fromtimestamp(sample.mtime_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{sample.number:>9} {modes.filemode(sample.mode)} {sample.size:>12} {when} {shell_name(sample.path)}"


def _show_pairs(told: list[dict[str, Any]]) -> None:
    for place, one in enumerate(told):
        if place:
            say()
        say_pairs((key, _text(key, value)) for key, value in one.items())


def _text(key: str, value: object) -> str:
    """A number of bytes also as people say it."""
    from tandem.core.units import human_size

    if key.endswith("_bytes") and isinstance(value, int) and value >= 1024:
        return f"{value:,} ({human_size(value)})"
    return str(value)
