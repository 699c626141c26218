"""What a client is told went wrong, and what the person who starts the server is."""

from __future__ import annotations

from typing import Any

from tandem.core.errors import TandemError


class ServeError(TandemError):
    """An address that cannot be listened at, or a token that cannot be used."""


class ApiError(Exception):
    """An answer that is an error, in the form of OpenAI's API.

    Args:
        status: Of HTTP.
        message: For a person.
        kind: `invalid_request_error`, `server_error`, ...
        param: Which part of the request is meant.
        code: For a program.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}
