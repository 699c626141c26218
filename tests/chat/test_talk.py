"""A talk: replies as they are drawn, history, and a context that is too short."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tandem.chat import models
from tandem.chat import recipe as recipes
from tandem.chat.errors import RowsError, ShortOfMemoryError, StageError
from tandem.chat.run_folder import RunFolder
from tandem.chat.talk import Talk, begun
from tandem.chat.talk import model_of as model_called
from tandem.chat.train import train
from tandem.core.errors import ConfigError
from tandem.kernels.model_folder import ModelFolderError
from tests.chat.small import model_of, template

TEMPLATE = "{% for m in messages %}<{{ m['role'][0] }}>{{ m['content'] }}{% endfor %}"


def talk(seed: int = 0, system: str = "", context_tokens: int = 64) -> Talk:
    loaded = models.Loaded(model_of("llama"), template(TEMPLATE), context_tokens)
    return Talk(loaded, 1.0, 8, torch.Generator().manual_seed(seed), system)


def test_pieces_are_the_reply_and_both_sides_are_remembered() -> None:
    one = talk(system="Be brief.")
    pieces: list[str] = []
    reply = one.say("hello", on_text=pieces.append)
    assert "".join(pieces) == reply
    assert [message["role"] for message in one.messages] == ["user", "assistant"]
    assert one.loaded.template.text(one._fitting()).startswith("<s>Be brief.<u>hello")
    one.forget()
    assert one.messages == []


def test_the_seed_decides_the_reply() -> None:
    assert talk(1).say("hello") == talk(1).say("hello")
    assert len({talk(seed).say("hello") for seed in range(5)}) > 1


def test_the_oldest_turns_go_where_the_context_is_too_short_but_the_system_stays() -> None:
    one = talk(system="S", context_tokens=48)
    for i in range(4):
        one.messages += [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": "yes"}]
    one.messages.append({"role": "user", "content": "last"})
    text = one.loaded.template.text(one._fitting())
    assert text.startswith("<s>S")
    assert text.endswith("<u>last")
    assert "question 0" not in text
    assert "question 3" in text


def test_a_message_longer_than_the_context_is_refused_and_forgotten() -> None:
    one = talk()
    with pytest.raises(RowsError, match="a message of 103 tokens and a reply of up to 8"):
        one.say("x" * 100)
    assert one.messages == []


def test_what_is_too_long_is_told_with_what_would_help() -> None:
    def told(said: int, system: int) -> str:
        with pytest.raises(RowsError) as caught:
            talk(system="s" * system).say("x" * said)
        return str(caught.value)

    assert told(100, 0).endswith("; say less")
    assert told(55, 0).endswith("; say less, or ask for a shorter reply: --tokens")
    assert told(40, 57).endswith("; say less, or give a shorter --system")
    with pytest.raises(RowsError, match=r"a system prompt \(--system\) of \d+ tokens .*; give a shorter one$"):
        talk(system="s" * 60)._check_system()
    talk(system="s" * 50)._check_system()


def test_what_the_models_template_does_not_take_is_refused_and_forgotten() -> None:
    refuses = "{% if 'system' in messages|map(attribute='role') %}{{ raise_exception('no system') }}{% endif %}"
    refuses += "{% if messages[0].content == 'no' %}{{ raise_exception('not that') }}{% endif %}" + TEMPLATE
    one = Talk(models.Loaded(model_of("llama"), template(refuses), 64), 1.0, 8, torch.Generator(), "Be brief.")
    with pytest.raises(RowsError, match=r"system, user, which .* not take: no system; .*; leave the system"):
        one._check_system()
    one.system = ""
    one._check_system()
    with pytest.raises(RowsError, match=r"does not take: not that; .*; change the text"):
        one.say("no")
    assert one.messages == []


def test_what_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    one = talk()
    with pytest.raises(RowsError, match=r"a message that is not UTF-8: 'na\\udcefve'; allowed: text in UTF-8"):
        one.say(b"na\xefve".decode(errors="surrogateescape"))
    assert one.messages == []
    with pytest.raises(RowsError, match="a system prompt that is not UTF-8"):
        begun(tmp_path, model="", system="\udcef", temperature=0.0, tokens=8, seed=0)


def test_a_run_is_talked_to_by_its_last_model(recipe_file: Callable[[str], Path], tmp_path: Path) -> None:
    file = recipe_file("[sft]\nsteps = 1\nbatch_tokens = 64\n")
    train(recipes.load(file), tmp_path / "run", recipe_folder=tmp_path)
    asked = {"system": "", "temperature": 0.0, "tokens": 500, "seed": 0}
    one = begun(tmp_path / "run", model="", **asked)
    assert one.tokens == 16  # half of the context
    assert one.say("hi") == begun(tmp_path / "run", model="sft", **asked).say("hi")
    with pytest.raises(StageError, match=r"model 'rl' of .*; allowed: sft, start"):
        begun(tmp_path / "run", model="rl", **asked)
    with pytest.raises(StageError, match="is no run"):
        begun(tmp_path, model="", **asked)


def test_an_average_is_talked_to_by_its_name_alone(recipe_file: Callable[[str], Path], tmp_path: Path) -> None:
    stages = '[rl]\nsteps = 1\nreward = "gsm8k"\nprompts = 2\nresponse_tokens = 4\nema = 0.5\n'
    train(recipes.load(recipe_file(stages)), tmp_path / "run", recipe_folder=tmp_path)
    assert model_called(tmp_path / "run", "rl-average")[0] == "rl-average"
    assert model_called(tmp_path / "run", "")[0] == "rl"
    shutil.rmtree(tmp_path / "run" / "models" / "rl")
    assert model_called(tmp_path / "run", "")[0] == "start"


def test_a_model_or_a_reply_that_does_not_fit_into_memory_is_told(
    recipe_file: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*given: object, **settings: object) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)

    file = recipe_file("[sft]\nsteps = 1\nbatch_tokens = 64\n")
    train(recipes.load(file), tmp_path / "run", recipe_folder=tmp_path)
    one = begun(tmp_path / "run", model="", system="", temperature=0.0, tokens=4, seed=0)
    monkeypatch.setattr("tandem.chat.talk.generate", too_large)
    with pytest.raises(ShortOfMemoryError, match="take a smaller model, or another --device"):
        one.say("hi")
    assert one.messages == []
    monkeypatch.setattr(models, "read", too_large)
    with pytest.raises(ShortOfMemoryError, match="take a smaller model, or another --device"):
        begun(tmp_path / "run", model="", system="", temperature=0.0, tokens=4, seed=0)


def test_a_run_without_a_model_yet_and_one_whose_model_is_damaged_are_told(
    recipe_file: Callable[[str], Path], tmp_path: Path
) -> None:
    recipe = recipes.load(recipe_file("[sft]\nsteps = 1\nbatch_tokens = 64\n"))
    asked = {"model": "", "system": "", "temperature": 0.0, "tokens": 4, "seed": 0}
    with RunFolder(tmp_path / "run").begun(recipe):
        pass
    with pytest.raises(StageError, match="allowed: none is there yet; train it first"):
        begun(tmp_path / "run", **asked)
    train(recipe, tmp_path / "run", recipe_folder=tmp_path)
    weights = tmp_path / "run" / "models" / "sft" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelFolderError, match="models/sft cannot be loaded"):
        begun(tmp_path / "run", **asked)
    (tmp_path / "run" / "config.toml").write_text("[model")
    with pytest.raises(ConfigError, match=r"config\.toml"):
        begun(tmp_path / "run", **asked)
