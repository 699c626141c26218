"""The HTTP side: who may ask, what is asked, and how answers go back. No model is touched here.

POST /v1/chat/completions    an answer, or with "stream" each piece as it is drawn (server-sent events)
GET /v1/models               the one model that there is
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tandem.chat.engine.generate import Sampling
from tandem.chat.errors import RowsError
from tandem.chat.serve.errors import ApiError
from tandem.chat.serve.request import Request, parse
from tandem.chat.serve.worker import Ended, Event, Failed, Job, Piece, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette import requests
    from starlette.types import Receive, Scope, Send

    from tandem.core.clock import Clock

MOST_BYTES = 4 << 20
"""Of a request's body."""


def application(worker: Worker, model: str, token: str, clock: Clock) -> ASGIApp:
    """Return the application.

    Args:
        worker: Who answers.
        model: What the model is called.
        token: What a client has to show.
        clock: For the times in answers.
    """
    about = {"id": model, "object": "model", "created": int(clock.now()), "owned_by": "tandem"}

    async def models(request: requests.Request) -> Response:
        del request
        return JSONResponse({"object": "list", "data": [about]})

    async def one_model(request: requests.Request) -> Response:
        _check_model(request.path_params["name"], model)
        return JSONResponse(about)

    async def complete(request: requests.Request) -> Any:  # noqa: ANN401 - an ASGI application, as a response is
        asked = parse(await _body(request))
        _check_model(asked.model, model)
        return Answer(asked, worker, model, int(clock.now()))

    routes = [
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{name:path}", one_model, methods=["GET"]),
        Route("/v1/chat/completions", complete, methods=["POST"]),
    ]
    handlers: Any = {ApiError: _api_error, HTTPException: _http_error}
    return Guarded(Starlette(routes=routes, exception_handlers=handlers), token)


@final
@dataclass(frozen=True)
class Guarded:
    """Lets nobody in without the token."""

    app: ASGIApp
    token: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the token, then do as `app` does."""
        if scope["type"] == "http" and not self._may(scope):
            message = "Incorrect API key provided: the server's bearer token is needed."
            error = ApiError(401, message, code="invalid_api_key")
            await JSONResponse(error.body, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _may(self, scope: Scope) -> bool:
        shown: bytes = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, token = shown.partition(b" ")
        return hmac.compare_digest(token.strip(), self.token.encode()) and kind.lower() == b"bearer"


@final
class Answer:
    """An answer as an ASGI application: it is given up as soon as the client goes.

    Raises:
        ApiError: The prompt is too long, or too many requests wait.
    """

    def __init__(self, asked: Request, worker: Worker, model: str, created: int) -> None:
        loop, self._events = asyncio.get_running_loop(), asyncio.Queue[Event]()

        def tell(event: Event) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, event)

        self._asked = asked
        self._job = job_of(asked, worker, tell)
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": created, "model": model}
        worker.put(self._job)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        how = self._stream(send) if self._asked.stream else self._whole(scope, receive, send)
        tasks = [asyncio.ensure_future(how), asyncio.ensure_future(_gone(receive))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._job.dropped.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        texts = [""] * self._job.choices
        while isinstance(event := await self._events.get(), Piece):
            texts[event.choice] += event.text
        if isinstance(event, Failed):
            await JSONResponse(event.error.body, event.error.status)(scope, receive, send)
            return
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": event.reasons[i],
            }
            for i, text in enumerate(texts)
        ]
        body = {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage(event)}
        await JSONResponse(body)(scope, receive, send)

    async def _stream(self, send: Send) -> None:
        kind = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        async for data in self._chunks():
            text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
            await send({"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _chunks(self) -> AsyncIterator[dict[str, Any] | str]:
        for i in range(self._job.choices):
            yield self._chunk(i, {"role": "assistant", "content": ""}, None)
        while isinstance(event := await self._events.get(), Piece):
            if event.text:
                yield self._chunk(event.choice, {"content": event.text}, None)
        if isinstance(event, Failed):
            yield event.error.body
            return
        for i, reason in enumerate(event.reasons):
            yield self._chunk(i, {}, reason)
        if self._asked.stream_options is not None and self._asked.stream_options.include_usage:
            yield {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage(event)}
        yield "[DONE]"

    def _chunk(self, choice: int, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        choices = [{"index": choice, "delta": delta, "logprobs": None, "finish_reason": reason}]
        return {**self._head, "object": "chat.completion.chunk", "choices": choices}

    def _usage(self, ended: Ended) -> dict[str, int]:
        given = len(self._job.prompt)
        return {"prompt_tokens": given, "completion_tokens": ended.tokens, "total_tokens": given + ended.tokens}


def job_of(asked: Request, worker: Worker, tell: Any) -> Job:  # noqa: ANN401 - as Job has it
    """Return what the worker is to do.

    Raises:
        ApiError: The messages do not fit the template, or the context.
    """
    loaded = worker.loaded
    try:
        prompt = loaded.template.chat([message.plain() for message in asked.messages])
    except RowsError as error:
        message = f"The model's chat template does not take these messages: {error.__cause__}"
        raise ApiError(400, message, param="messages", code="invalid_value") from error
    room = loaded.context_tokens - len(prompt)
    wanted = asked.max_completion_tokens or asked.max_tokens
    if room < (wanted or 1):
        message = f"This model's maximum context length is {loaded.context_tokens} tokens. However, you requested"
        message += f" {len(prompt) + (wanted or 1)} tokens ({len(prompt)} in the messages, {wanted or 1} in the"
        message += " completion). Please reduce the length of the messages or completion."
        raise ApiError(400, message, param="messages", code="context_length_exceeded")
    sampling = Sampling(
        max_new_tokens=wanted or room,
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        eos_id=loaded.template.eos_id,
    )
    seed = secrets.randbits(63) if asked.seed is None else asked.seed
    return Job(prompt, sampling, asked.n or 1, asked.stops, seed, tell)


async def _body(request: requests.Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            message = f"The body of a request may have {MOST_BYTES} bytes."
            raise ApiError(413, message, code="request_too_large")
    return bytes(body)


async def _gone(receive: Receive) -> None:
    """Wait until the client goes."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _check_model(asked: str, there: str) -> None:
    if asked != there:
        message = f"The model '{asked}' does not exist; this server has '{there}'."
        raise ApiError(404, message, param="model", code="model_not_found")


async def _api_error(request: requests.Request, error: ApiError) -> Response:
    del request
    return JSONResponse(error.body, error.status)


async def _http_error(request: requests.Request, error: HTTPException) -> Response:
    message = f"{request.method} {request.url.path}: {error.detail}."
    told = ApiError(error.status_code, message, code="unknown_url" if error.status_code == 404 else None)
    return JSONResponse(told.body, told.status, error.headers)
