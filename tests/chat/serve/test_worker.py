"""Who answers: in order, a bounded number at a time, and nothing for those who have gone."""

import queue
import threading
from collections.abc import Iterator

import pytest
import torch

from tandem.chat.engine.generate import Sampling
from tandem.chat.models import Loaded
from tandem.chat.serve.app import job_of
from tandem.chat.serve.errors import ApiError
from tandem.chat.serve.request import Message, Request
from tandem.chat.serve.worker import Ended, Event, Failed, Job, Piece, Worker
from tests.chat.small import model_of, template

DEADLINE_S = 60


@pytest.fixture
def worker() -> Iterator[Worker]:
    one = Worker(Loaded(model_of("llama"), template(), 64), waiting=2)
    yield one
    one.close()


class Heard:
    """What a job was told; it can be held at its first piece."""

    def __init__(self, *, held: bool = False) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.began, self.go = threading.Event(), threading.Event()
        if not held:
            self.go.set()

    def tell(self, event: Event) -> None:
        self.began.set()
        assert self.go.wait(DEADLINE_S)
        self.events.put(event)

    def job(self, seed: int = 0) -> Job:
        sampling = Sampling(max_new_tokens=40, temperature=1.0, eos_id=256)
        return Job([1, 2, 3], sampling, 1, (), seed, self.tell)

    def whole(self) -> tuple[str, Event]:
        text = ""
        while isinstance(event := self.events.get(timeout=DEADLINE_S), Piece):
            text += event.text
        return text, event


def test_one_whose_client_goes_is_given_up_between_two_tokens(worker: Worker) -> None:
    gone, next_one = Heard(held=True), Heard()
    job = gone.job()
    worker.put(job)
    worker.put(next_one.job())
    assert gone.began.wait(DEADLINE_S)
    job.dropped.set()
    gone.go.set()
    assert isinstance(next_one.whole()[1], Ended)
    assert isinstance(gone.events.get_nowait(), Piece)
    assert gone.events.empty()


def test_those_that_wait_are_bounded_and_one_that_left_is_passed_over(worker: Worker) -> None:
    first, left, last = Heard(held=True), Heard(), Heard()
    worker.put(first.job())
    assert first.began.wait(DEADLINE_S)
    leaving = left.job()
    worker.put(leaving)
    worker.put(last.job())
    with pytest.raises(ApiError, match="overloaded") as caught:
        worker.put(Heard().job())
    assert caught.value.status == 503
    leaving.dropped.set()
    first.go.set()
    text, event = last.whole()
    assert event == Ended(("length",), 40)
    assert text == first.whole()[0]  # the same seed, so the same answer
    assert left.events.empty()


def test_a_model_that_says_no_number_fails_one_answer_and_not_the_next(worker: Worker) -> None:
    heard, after = Heard(), Heard()
    weight = worker.loaded.model.model.norm.weight
    with torch.no_grad():
        before = weight.clone()
        weight.fill_(torch.nan)
    worker.put(heard.job())
    text, event = heard.whole()
    assert (text, type(event)) == ("", Failed)
    assert isinstance(event, Failed)
    assert event.error.status == 500
    assert "NaN or infinite" in str(event.error)
    with torch.no_grad():
        weight.copy_(before)
    worker.put(after.job())
    assert isinstance(after.whole()[1], Ended)


def test_an_answer_that_does_not_fit_into_memory_is_told(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    monkeypatch.setattr("tandem.chat.serve.worker.generate", lambda *given, **settings: torch.empty(1 << 60))
    worker.put(heard.job())
    _, event = heard.whole()
    assert isinstance(event, Failed)
    assert "does not fit into memory" in str(event.error)


def test_messages_that_the_template_does_not_take_are_refused(worker: Worker) -> None:
    worker.loaded.template.tokenizer.chat_template = "{{ raise_exception('not two of one side') }}"
    asked = Request(model="sft", messages=[Message(role="user", content="a")])
    with pytest.raises(ApiError, match=r"does not take these messages: not two of one side$") as caught:
        job_of(asked, worker, lambda event: None)
    assert caught.value.status == 400


def test_closing_ends_what_runs() -> None:
    one, heard = Worker(Loaded(model_of("llama"), template(), 64), waiting=2), Heard(held=True)
    one.put(heard.job())
    one.put(Heard().job())
    assert heard.began.wait(DEADLINE_S)
    closing = threading.Thread(target=one.close)
    closing.start()
    assert one._closed.wait(DEADLINE_S)
    heard.go.set()
    closing.join(DEADLINE_S)
    assert not closing.is_alive()
    assert heard.events.qsize() == 1
