"""How the bytes of samples become what a training wants, and what is said when they cannot.

Legend: N samples of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tandem.core.errors import TandemError
from tandem.data.mixture import Mixture
from tandem.data.steps import LoaderError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tandem.data.batch import Samples
    from tandem.data.order import Numbers

Where = Literal["threads", "processes"]


class DecodeError(TandemError):
    """A decoder that failed; its own error is the cause, and says where."""


class DecoderFailure(Exception):  # never seen by users: it carries what a decoder raised to where it is told
    """What a decoder raised, and at which sample of the batch; None for the batch as a whole."""

    def __init__(self, place: int | None, cause: BaseException) -> None:
        super().__init__(place, cause)
        self.place, self.cause = place, cause


class DecoderEndedError(Exception):
    """The process that a decoder ran in ended; the words say how."""


class DecoderToldError(Exception):
    """What a decoder raised in a process of its own, in words: it cannot itself come over."""


class DecoderResultError(Exception):
    """Results that cannot come over from the process that made them; the words say why."""


@dataclass(frozen=True, slots=True)
class Decode:
    """Decoding in up to three stages, each left out where it is not named.

    Attributes:
        sample: Called with the bytes of one sample (a view of a buffer that is used again once nothing refers
            to it).
        batch: Called with the list of all N results (or of all N views); what it returns is the batch.
        numbered: Whether `sample` is called with the sample's number too, by which its label or path can be looked up.
        pin: Whether arrays, tensors and views of a batch are moved to page-locked memory, as tensors, so that
            `tensor.to("cuda", non_blocking=True)` does not wait. Needs torch and a GPU.

    Raises:
        LoaderError: A stage cannot be called.
    """

    sample: Callable[..., Any] | None = None
    batch: Callable[[list[Any]], Any] | None = None
    numbered: bool = False
    pin: bool = False

    def __post_init__(self) -> None:
        for name in ("sample", "batch"):
            stage = getattr(self, name)
            if stage is not None and not callable(stage):
                raise LoaderError(
                    given=f"decode.{name}={stage!r}", allowed="a function, or None", todo="name what decodes, uncalled"
                )

    @property
    def is_plain(self) -> bool:
        """Whether nothing is done at all."""
        return self.sample is None and self.batch is None and not self.pin

    def __call__(self, views: list[memoryview], numbers: list[int]) -> object:
        """The first two stages.

        Raises:
            DecoderFailure: A stage raised.
        """
        return self.together(self.each(views, numbers))

    def each(self, views: Iterable[memoryview], numbers: list[int]) -> list[Any]:
        """The first stage.

        Raises:
            DecoderFailure: It raised; says at which sample.
        """
        if self.sample is None:
            return [*views]
        found: list[Any] = []
        sample, keep = self.sample, found.append
        try:
            if self.numbered:
                for view, number in zip(views, numbers, strict=True):
                    keep(sample(view, number))
            else:
                for view in views:
                    keep(sample(view))
        except Exception as error:
            raise DecoderFailure(len(found), error) from error
        return found

    def together(self, found: list[Any]) -> object:
        """The second stage.

        Raises:
            DecoderFailure: It raised.
        """
        if self.batch is None:
            return found
        try:
            return self.batch(found)
        except Exception as error:
            raise DecoderFailure(None, error) from error


def words_of(error: BaseException) -> str:
    """What an error is, in words, even if its own cannot be had."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # its __str__ raises
        return f"{type(error).__name__}, whose words cannot be had"


def told(failure: DecoderFailure, samples: Samples | Mixture, numbers_N: Numbers) -> DecodeError:
    """The error for whoever takes the batch."""
    cause, place = failure.cause, failure.place
    ended, unbrought = isinstance(cause, DecoderEndedError), isinstance(cause, DecoderResultError)
    in_words = ended or unbrought or isinstance(cause, DecoderToldError)
    words = " ".join((str(cause) if in_words else words_of(cause)).split())
    if place is None:
        named = ", ".join(str(number) for number in numbers_N[:8].tolist()) + (", ..." if len(numbers_N) > 8 else "")
        given = f"the batch of samples {named} could not be {'taken over' if unbrought else 'put together'}"
        allowed = "in processes, results that can be pickled" if unbrought else "what decode.batch accepts"
    else:
        name = sample_name(samples, int(numbers_N[place]))
        given, allowed = f"{name} could not be decoded", "bytes that decode accepts"
    todo = f"the traceback above is of {'decode' if place is not None else 'decode.batch'} itself"
    if ended:
        todo = "to see what ends it, decode it in a process of its own"
    elif unbrought:
        todo = "return bytes(view) for a view, a list for a generator, or decode in threads"
    return DecodeError(given=f"{given}: {words}", allowed=allowed, todo=todo)


def sample_name(samples: Samples | Mixture, number: int) -> str:
    """What a sample is called in an error: its number, its path where it has one, and its source in a mixture."""
    if isinstance(samples, Mixture):
        source, own = samples.source_of(number)
        return f"{sample_name(samples.sources[source], own)} of source {source}"
    path = getattr(samples, "path", None)
    return f"sample {number} ({path(number)!r})" if callable(path) else f"sample {number}"
