"""Models: read from folders, drawn, saved; and what is refused."""

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tandem.chat import lora, models, tokenizers
from tandem.chat.recipe import Lora, Model
from tandem.kernels.model_folder import ModelFolderError
from tests import disks
from tests.chat.small import FAMILIES, folder_of, model_of, template


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_comes_back_as_it_was_saved_without_dropout_and_plain_transformers_loads_it(
    family: str, tmp_path: Path
) -> None:
    loaded = models.read(folder_of(tmp_path / "in", family))
    models.save(loaded.model, loaded.template, tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokens_BT = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(plain(input_ids=tokens_BT).logits, loaded.model(input_ids=tokens_BT).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").eos_token_id == loaded.template.eos_id == 256
    drops = [module.p for module in loaded.model.modules() if isinstance(module, torch.nn.Dropout)]
    assert all(p == 0.0 for p in drops)
    loaded.model.train()
    with torch.no_grad():
        first, again = (loaded.model(input_ids=tokens_BT).logits for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_weights_and_adapters_may_be_read_by_whom_the_umask_lets(umask: int, tmp_path: Path) -> None:
    model = model_of("llama")
    lora.put_in(model, Lora(rank=2), seed=0)
    before = os.umask(umask)
    try:
        models.save(model, template(), tmp_path / "out", base="there")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"model.safetensors", "adapter_model.safetensors"} <= {path.name for path in files}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}


def test_a_disk_that_is_full_is_told_and_the_model_that_was_there_stays(tmp_path: Path) -> None:
    large = model_of("llama", hidden_size=256, intermediate_size=512)
    with disks.small(tmp_path / "small", 1) as disk:
        models.save(model_of("llama"), template(), disk / "model")
        with pytest.raises(ModelFolderError, match=r"the model cannot be written to .*/small/model: .*No space left"):
            models.save(large, template(), disk / "model")
        assert [path.name for path in disk.iterdir()] == ["model"]
        assert models.read(disk / "model").model.config.hidden_size < 256


def test_gpt2_has_dropout_when_plain_so_that_the_test_above_can_fail() -> None:
    model = model_of("gpt2").train()
    tokens_BT = torch.arange(12)[None]
    with torch.no_grad():
        first, again = (model(input_ids=tokens_BT).logits for _ in range(2))
    assert not torch.equal(first, again)


def test_a_tokenizer_whose_padding_is_its_eos_gets_another(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", vocabulary=258)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    loaded = models.read(folder)
    assert loaded.template.pad_id != loaded.template.eos_id
    assert loaded.model.config.pad_token_id == loaded.template.pad_id
    assert loaded.model.get_input_embeddings().weight.shape[0] > loaded.template.pad_id


def test_a_model_without_room_for_padding_grows_by_a_row(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", vocabulary=257, pad_token_id=None)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [one for one in tokenizer["added_tokens"] if one["content"] != tokenizers.PAD]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("pad_token")
    settings.get("added_tokens_decoder", {}).pop("257", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    loaded = models.read(folder)
    assert loaded.template.pad_id == 257
    assert loaded.model.get_input_embeddings().weight.shape[0] == 258


def _no_eos(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("eos_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "its config.json is no JSON"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "unheard"}'), "cannot be loaded"),
        (_cut, "cannot be loaded"),
        (lambda folder: [file.unlink() for file in folder.glob("tokenizer*")], "tokenizer"),
        (_no_eos, "no EOS"),
    ],
)
def test_what_is_no_model_is_refused_in_words(spoil: object, told: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in")
    spoil(folder)
    with pytest.raises(ModelFolderError, match=told):
        models.read(folder)


def test_a_folder_that_is_not_there_and_one_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="there is no such folder"):
        models.read(tmp_path / "none")
    with pytest.raises(ModelFolderError, match="a tokenizer of 258 tokens and a model of 100"):
        models.read(folder_of(tmp_path / "in", vocabulary=100, eos_token_id=1, pad_token_id=2))


def test_a_model_that_scales_its_logits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="scales or caps its logits"):
        models.read(folder_of(tmp_path / "in", "granite", logits_scaling=4.0))


def test_a_drawn_model_follows_from_its_seed_and_leaves_the_programs_chance_alone() -> None:
    recipe = Model(init="tiny-llama", width=16, layers=1, heads=2, context_tokens=32)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (models.start(recipe, list, seed).model.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("kind", "vocabulary"), [("bytes", 0), ("bpe", 300)])
def test_trained_tokenizers_say_back_what_they_read(kind: str, vocabulary: int) -> None:
    text = "She said: naïve 漢字 🙂\n\ttwo  spaces" * 3
    tokenizer = tokenizers.trained(kind, [text], vocabulary)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(tokens) == text
    assert (len(tokens) == len(text.encode())) == (kind == "bytes")
    assert len({tokenizer.eos_token_id, tokenizer.pad_token_id, None}) == 3
    assert len(tokenizer) <= max(258, vocabulary)


def test_a_vocabulary_without_room_for_bytes_is_refused() -> None:
    with pytest.raises(ModelFolderError, match="at least 258"):
        tokenizers.trained("bpe", ["text"], 100)


def test_all_stages_read_one_template_and_end_with_eos() -> None:
    one = template("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}")
    assert bytes(one.prompt("hi")) == b"<user>hi" or one.tokenizer.decode(one.prompt("hi")) == "<user>hi"
    assert one.response("yes")[-1] == one.eos_id
    assert one.text(one.response("yes")) == "yes"
    assert one.text([*one.response("yes"), *one.response("more")]) == "yes"


def test_turns_of_a_talk_are_told_apart_where_a_tokenizer_has_no_template() -> None:
    one = template()
    said = [("system", "a"), ("user", "b"), ("assistant", "c"), ("user", "d")]
    tokens = one.chat([{"role": role, "content": content} for role, content in said])
    assert one.tokenizer.decode(tokens) == f"a\nb\nc{tokenizers.EOS}d\n"
    assert one.prompt("b") == one.tokenizer("b\n")["input_ids"]
