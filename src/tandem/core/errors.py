"""Mistakes a user can make, one class per kind.

Every error says what was given, what is allowed and what to do, in one line. The command line prints
that line and exits with `exit_code`; the daemon sends `as_dict()` over its socket and the client raises
`from_dict()` of it again.
"""

from __future__ import annotations

from tandem.core.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Mapping
    from typing import ClassVar

_TOKEN_FIRST = ("http://", "https://", "ftp://")
_SECRET = (
    "(?:[a-z-]*-)?(?:signature|credential|security-token)"
    "|(?:access_|auth_)?token|api_?key|sig|pass(?:word|wd)?|pwd|secret|jwt"
)


class TandemError(Exception):
    """A mistake that the person who made it can put right.

    Args:
        given: What was given, as a clause ("unknown policy 'hybird'").
        allowed: What is allowed, as a list or a clause ("backfill, hybrid, share").
        todo: What to do now ("did you mean 'hybrid'?").
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, *, given: str, allowed: str, todo: str) -> None:
        self.given, self.allowed, self.todo = map(without_secrets, (given, allowed, todo))
        super().__init__(self.given, self.allowed, self.todo)

    def __str__(self) -> str:
        """Return the one line that is shown to the user."""
        return one_line(f"{self.given}; allowed: {self.allowed}; {self.todo}")

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the keyword-only constructor."""
        return (_rebuild, (type(self), self.given, self.allowed, self.todo))

    def as_dict(self) -> dict[str, str | int]:
        """Return the error as JSON-ready values; `error` is the class name."""
        return {
            "error": type(self).__name__,
            "given": self.given,
            "allowed": self.allowed,
            "todo": self.todo,
            "message": str(self),
            "exit_code": self.exit_code,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> TandemError:
        """Rebuild an error from `as_dict()`; a class that is unknown here becomes a plain `TandemError`."""
        kind = next((k for k in _family(TandemError) if k.__name__ == values.get("error")), TandemError)
        parts = {key: str(values.get(key, "")) for key in ("given", "allowed", "todo")}
        return kind(**parts)


class ConfigError(TandemError):
    """A configuration file or an override that does not fit."""


class QuantityError(TandemError):
    """A duration or a size that cannot be read."""


class UnknownPluginError(TandemError):
    """A policy, engine, estimator, ... that does not exist."""


class MissingPackageError(TandemError):
    """An optional package that the chosen plug-in needs is not installed."""


class ImpossibleDemandError(TandemError):
    """A demand that no node can ever meet."""


class DependencyError(TandemError):
    """A dependency that is unknown or cyclic."""


class TraceError(TandemError):
    """A trace that cannot be read."""


class StoreError(TandemError):
    """A database that is corrupt, full, or newer than this program."""


class SpaceError(TandemError):
    """No space where one was named, one that this program cannot read, or a path that is not in it."""


class NewerVersionError(SpaceError):
    """A space that a later version of this program wrote."""


class DataError(TandemError):
    """Packed bytes that are damaged, cut short or missing."""


class MountError(TandemError):
    """A place where a space cannot be mounted."""


class PermissionRefusedError(TandemError):
    """An attempt on what belongs to another user."""


class DaemonError(TandemError):
    """The daemon does not answer, or another one already runs."""


class DaemonAwayError(DaemonError):
    """The daemon does not run, and is not this user's to start."""


class DaemonLostError(DaemonError):
    """The daemon went away without a word while it was asked: it was killed."""


class DaemonHangsError(DaemonError):
    """The daemon is there, and does nothing."""


class DaemonStoppedError(DaemonError):
    """The daemon was stopped while it was asked."""


class UnknownJobError(TandemError):
    """A job identifier that does not exist."""


class JobStateError(TandemError):
    """A command that the job's present state does not allow."""


class MachineBusyError(TandemError):
    """Cores or GPUs that somebody else holds."""


def without_secrets(text: str) -> str:
    """A text for logs and for others to read: passwords and tokens in its URLs are left out, users' names stay.

    >>> without_secrets("http://me:word@host/a, https://token@host/b and sftp://me@host/c?mail=a@b")
    'http://me:***@host/a, https://***@host/b and sftp://me@host/c?mail=a@b'
    >>> without_secrets("zip://a.txt::http://me:word@host/b.zip")
    'zip://a.txt::http://me:***@host/b.zip'
    >>> without_secrets("https://bucket/a?X-Amz-Signature=abc&part=2")
    'https://bucket/a?X-Amz-Signature=***&part=2'
    """
    if "://" not in text:
        return text
    import re

    def user(found: re.Match[str]) -> str:
        name, colon, _ = found[2].partition(":")
        if colon:
            return f"{found[1]}{name}:***@"
        return f"{found[1]}***@" if found[1].lower() in _TOKEN_FIRST else found[0]

    def url(found: re.Match[str]) -> str:
        text = re.sub(r"(?:^|(?<=::))([^:]*://)([^/?#]*)@", user, found[0])  # each of a chain
        return re.sub(rf"(?i)([?&](?:{_SECRET})=)[^&]*[^&;:,.)]", r"\1***", text)

    return re.sub(r"\b[A-Za-z][\w+.-]*://[^\s'\"]+", url, text)


def one_line(text: str) -> str:
    """Escape what cannot be printed (line ends, control characters), so that the text stays one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def in_words(error: BaseException, *, kind: bool = True) -> str:
    """What somebody else's code raised: its kind, unless that is not asked for, and its words where it has any.

    Its own ``__str__`` may fail too.

    >>> in_words(ValueError("too long")), in_words(ValueError("too long"), kind=False), in_words(ValueError())
    ('ValueError: too long', 'too long', 'ValueError')
    """
    name = type(error).__name__
    try:
        words = str(error)
    except Exception:  # whatever its author wrote there
        words = ""
    if not words.strip():
        return name
    return f"{name}: {words}" if kind else words


def _rebuild(kind: type[TandemError], given: str, allowed: str, todo: str) -> TandemError:
    return kind(given=given, allowed=allowed, todo=todo)


def _family(kind: type[TandemError]) -> Iterator[type[TandemError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)
