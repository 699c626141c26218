"""What a client may ask for: the body of POST /v1/chat/completions, checked.

Parameters that would change the answer and that nothing here can honour are refused, as unknown ones are; those that
only say who asks or how to bill are passed over. Source: OpenAI's API reference, "Create chat completion".
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from tandem.chat.serve.errors import ApiError

MOST_CHOICES, MOST_STOPS = 16, 4

Stop = Annotated[str, StringConstraints(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Text(_Strict):
    """A part of a message; only texts are understood."""

    type: Literal["text"]
    text: str


class Message(_Strict):
    """What somebody said."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Text]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """Return it as templates take it."""
        said = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": said}


class StreamOptions(_Strict):
    """Of a streamed answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class PlainText(_Strict):
    """The one form that answers have."""

    type: Literal["text"]


class Request(_Strict):
    """A request. What has one value alone is known, and cannot be had otherwise."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    # These make no difference to an answer.
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    # These would, and have only the value that makes none.
    store: Literal[False] | None = None
    logprobs: Literal[False] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    response_format: PlainText | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Where the answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


def parse(body: bytes) -> Request:
    """Read a request.

    Raises:
        ApiError: It is no JSON, or asks for what there is not; says which part is meant.
    """
    try:
        value = json.loads(body, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start]).strip("'")
        message = f"A text in your request is not valid Unicode: it has half of a surrogate pair, {half}."
        raise ApiError(400, message, code="invalid_value") from error
    except (ValueError, RecursionError) as error:
        message = "We could not parse the JSON body of your request: it is not valid JSON."
        raise ApiError(400, message) from error
    if not isinstance(value, dict):
        message = "The body of a request is a JSON object."
        raise ApiError(400, message)
    try:
        found = Request.model_validate(value)
    except ValidationError as error:
        raise _told(error) from error
    if found.max_tokens is not None and found.max_completion_tokens is not None:
        message = "Give max_tokens or max_completion_tokens, not both."
        raise ApiError(400, message, param="max_tokens", code="invalid_value")
    if found.stream_options is not None and not found.stream:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise ApiError(400, message, param="stream_options", code="invalid_value")
    return found


def _told(error: ValidationError) -> ApiError:
    """The first thing that is wrong, as OpenAI's API says it."""
    first = error.errors(include_url=False)[0]
    names = [part for part in first["loc"] if isinstance(part, int) or part in _NAMES]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in names).lstrip(".")
    if first["type"] == "extra_forbidden":
        unknown = ".".join(str(part) for part in first["loc"])
        return ApiError(
            400, f"Unrecognized request argument supplied: {unknown}", param=unknown, code="unknown_parameter"
        )
    if first["type"] == "missing":
        return ApiError(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    return ApiError(400, f"Invalid value for '{param}': {first['msg']}.", param=param, code="invalid_value")


_NAMES = {name for kind in (Request, Message, Text, StreamOptions, PlainText) for name in kind.model_fields}


def _refuse(name: str) -> Any:  # noqa: ANN401 - never returns
    message = f"{name} is no JSON"
    raise ValueError(message)
