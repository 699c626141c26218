"""A real server and the real client: answers, streams, mistakes, many at once, clients that go, and how it ends."""

import contextlib
import http.client
import json
import re
import signal
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
import torch

from tandem.chat.errors import StageError
from tandem.chat.serve.errors import ServeError
from tandem.chat.serve.server import listening, serve, token_in
from tandem.chat.talk import begun
from tests.chat.serve.conftest import Served, run_in
from tests.core.process.attempts import cpu_s

pytestmark = pytest.mark.slow

ASKED: dict[str, Any] = {"model": "sft", "messages": [{"role": "user", "content": "abc"}], "max_tokens": 6}


def post(server: dict[str, Any], body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    where = urlsplit(server["url"])
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
    key = Path(server["token_file"]).read_text().strip()
    connection.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {key}", **headers})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def test_an_answer_is_what_the_engine_says_and_is_counted(client: openai.OpenAI, run: Path) -> None:
    talk = begun(run, model="sft", system="be brief", temperature=0.0, tokens=6, seed=0)
    expected = talk.say("abc")
    asked = ASKED | {"messages": [{"role": "system", "content": "be brief"}, *ASKED["messages"]]}
    said = client.chat.completions.create(**asked, temperature=0)
    assert said.choices[0].message.content == expected
    assert said.choices[0].message.role == "assistant"
    assert said.choices[0].finish_reason == "length"
    assert said.usage is not None
    assert said.usage.prompt_tokens == len(talk.loaded.template.chat(asked["messages"]))
    assert said.usage.completion_tokens == 6
    assert said.usage.total_tokens == said.usage.prompt_tokens + 6
    assert said.model == "sft"
    assert [model.id for model in client.models.list()] == ["sft"]
    assert client.models.retrieve("sft").owned_by == "tandem"


def test_a_run_in_bfloat16_is_served_in_it(served: Served, tmp_path: Path) -> None:
    run = run_in(tmp_path, "dtype=bfloat16", "device=cpu")
    talk = begun(run, model="", system="", temperature=0.0, tokens=6, seed=0)
    assert talk.loaded.model.dtype == torch.bfloat16
    with served(run=run) as (server, _):
        body = json.dumps(ASKED | {"temperature": 0}).encode()
        status, answer = post(server, body)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, talk.say("abc"))


def test_a_stream_gives_each_piece_as_it_is_drawn(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ASKED, n=2, seed=5).choices
    with client.chat.completions.create(
        **ASKED, n=2, seed=5, stream=True, stream_options={"include_usage": True}
    ) as chunks:
        found = list(chunks)
    texts, reasons = ["", ""], ["", ""]
    for chunk in found[:-1]:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        reasons[choice.index] += choice.finish_reason or ""
    assert texts == [choice.message.content for choice in whole]
    assert reasons == [choice.finish_reason for choice in whole]
    assert texts[0] != texts[1]
    assert found[-1].choices == []
    assert found[-1].usage is not None
    assert found[-1].usage.completion_tokens == 12


def test_chance_follows_seed_temperature_and_top_p(client: openai.OpenAI) -> None:
    def said(**more: Any) -> str | None:  # noqa: ANN401 - whatever a request has
        return client.chat.completions.create(**ASKED | more).choices[0].message.content

    assert said(seed=1) == said(seed=1)
    assert len({said(seed=seed) for seed in range(4)}) > 1
    assert len({said() for _ in range(4)}) > 1
    greedy = said(temperature=0)
    assert {said(seed=seed, top_p=1e-6) for seed in range(3)} == {greedy}
    assert said(max_tokens=None, max_completion_tokens=2, temperature=0) == (greedy or "")[:2]


def test_a_stop_ends_an_answer_before_it(client: openai.OpenAI) -> None:
    asked = ASKED | {"seed": 3, "max_tokens": 40}
    text = client.chat.completions.create(**asked).choices[0].message.content or ""
    plain = next(i for i in range(3, len(text) - 1) if text[i : i + 2].isascii() and "\ufffd" not in text[: i + 2])
    stop = text[plain : plain + 2]
    stopped = client.chat.completions.create(**asked, stop=["\x00never", stop])
    assert stopped.choices[0].message.content == text[: text.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"
    streamed = client.chat.completions.create(**asked, stop=stop, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in streamed]
    assert "".join(pieces) == text[: text.index(stop)]


def test_without_its_token_nobody_is_answered(server: dict[str, Any], client: openai.OpenAI) -> None:
    for key in ("wrong", client.api_key + "x", client.api_key[:-1]):
        with pytest.raises(openai.AuthenticationError) as caught:
            client.with_options(api_key=key).chat.completions.create(**ASKED)
        assert caught.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key=key).models.list()
    for header in ("", "Bearer", "Basic " + client.api_key, client.api_key, "Bearer \xff"):
        assert post(server, json.dumps(ASKED).encode(), Authorization=header)[0] == 401


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"model": "gpt-4o"}, 404, "model", "model_not_found"),
        ({"messages": []}, 400, "messages", "invalid_value"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, 400, "messages", "context_length_exceeded"),
        ({"max_tokens": 4096}, 400, "messages", "context_length_exceeded"),
        ({"max_tokens": 0}, 400, "max_tokens", "invalid_value"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, 400, "max_tokens", "invalid_value"),
        ({"temperature": 2.5}, 400, "temperature", "invalid_value"),
        ({"temperature": "hot"}, 400, "temperature", "invalid_value"),
        ({"top_p": 0}, 400, "top_p", "invalid_value"),
        ({"n": 0}, 400, "n", "invalid_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop", "invalid_value"),
        ({"stop": ""}, 400, "stop", "invalid_value"),
        ({"logprobs": True}, 400, "logprobs", "invalid_value"),
        ({"tools": []}, 400, "tools", "unknown_parameter"),
        ({"temprature": 1}, 400, "temprature", "unknown_parameter"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", "invalid_value"),
    ],
)
def test_what_cannot_be_had_is_refused_in_openais_form(
    change: dict[str, Any], status: int, param: str, code: str, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**ASKED, extra_body=change)
    assert caught.value.status_code == status
    assert (caught.value.param, caught.value.code, caught.value.type) == (param, code, "invalid_request_error")


def test_bodies_that_are_no_request_are_refused(server: dict[str, Any]) -> None:
    for body in (b"", b"{", b"[]", b'{"temperature": NaN}', b"\xff", b"[" * 100_000):
        status, told = post(server, body)
        assert status == 400
        assert told["error"]["type"] == "invalid_request_error"
    for text in ('{"model": "sft", "messages": [{"role": "user", "content": "a\\ud800"}]}', '{"model": "\\udc80"}'):
        status, told = post(server, text.encode())
        assert status == 400
        assert "not valid Unicode: it has half of a surrogate pair" in told["error"]["message"]
    assert post(server, b" " * (5 << 20))[0] == 413
    assert post(server, b'{"model": "sft"}')[1]["error"]["param"] == "messages"


def test_unknown_addresses_are_answered_in_the_same_form(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.get("/embeddings", cast_to=object)
    assert caught.value.code == "unknown_url"
    with pytest.raises(openai.APIStatusError) as caught_too:
        client.get("/chat/completions", cast_to=object)
    assert caught_too.value.status_code == 405


def test_eight_clients_at_once_get_each_their_own_answer(client: openai.OpenAI) -> None:
    def answer(i: int) -> str:
        asked = ASKED | {"messages": [{"role": "user", "content": f"question {i}"}], "seed": i, "max_tokens": 24}
        if i % 2:
            return client.chat.completions.create(**asked).choices[0].message.content or ""
        chunks = client.chat.completions.create(**asked, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    alone = [answer(i) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer, range(8))) == alone
    assert len(set(alone)) == 8


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_does_not_keep_the_model(
    stream: bool, server: dict[str, Any], client: openai.OpenAI
) -> None:
    """The least likely to end by itself: greedily, a model without training says the same again and again.

    What an answer costs is counted in the server's own seconds, so that nobody beside it on the machine counts.
    """
    long = ASKED | {"temperature": 0, "max_tokens": 4000}
    began_s = cpu_s(server["pid"])
    said = client.chat.completions.create(**long)
    whole_s = cpu_s(server["pid"]) - began_s
    assert said.choices[0].finish_reason == "length"
    where = urlsplit(server["url"])
    body = json.dumps(long | {"stream": stream}).encode()
    with socket.create_connection((str(where.hostname), where.port or 0)) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.api_key}\r\n"
        connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if stream:
            received = b""
            while b"data: " not in received:
                received += connection.recv(4096)
            assert b"[DONE]" not in received
    began_s = cpu_s(server["pid"])
    client.chat.completions.create(**ASKED)
    assert cpu_s(server["pid"]) - began_s < 0.5 * whole_s


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_in_the_middle_of_an_answer(number: int, served: Served) -> None:
    with served() as (told, process):
        key = Path(told["token_file"]).read_text().strip()
        with openai.OpenAI(base_url=told["url"], api_key=key, max_retries=0) as client:
            asked = ASKED | {"temperature": 0, "max_tokens": 4000}
            chunks = iter(client.chat.completions.create(**asked, stream=True))
            next(chunks)
            process.send_signal(number)
            with contextlib.suppress(openai.APIError):  # or it had everything already
                list(chunks)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")


def test_the_token_is_made_once_for_its_owner_alone(server: dict[str, Any], run: Path, tmp_path: Path) -> None:
    file = run / "serve-token"
    assert server["token_file"] == str(file)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", server["url"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token_in(file) == (file.read_text().strip(), file, False)
    made, _, new = token_in(tmp_path / "token")
    assert new
    assert len(made) >= 32
    (tmp_path / "short").write_text("secret")
    with pytest.raises(ServeError, match="of 6 characters; allowed: one word of at least 16"):
        token_in(tmp_path / "short")
    with pytest.raises(ServeError, match="No such file or directory"):
        token_in(tmp_path / "absent" / "token")


def test_what_cannot_be_served_is_said_before_anything_begins(run: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "token_file": None, "waiting": 1, "ready": print}
    with pytest.raises(StageError, match="is no run"):
        serve(tmp_path, model="", **settings)
    with pytest.raises(StageError, match="model 'rl' of"):
        serve(run, model="rl", **settings)
    with listening("127.0.0.1", 0) as taken, pytest.raises(ServeError, match="give another --port"):
        serve(run, model="", **settings | {"port": taken.getsockname()[1]})
    with pytest.raises(ServeError, match="an address of this machine"):
        listening("no.such.host.invalid", 0)
