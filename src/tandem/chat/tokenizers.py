"""Tokenizers: made from nothing for models that are, checked for models that are not.

Every tokenizer here has an EOS, and a padding token that is another one: were they the same, whoever masks padding
would mask the EOS that a response ends with, and a model would never learn to stop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from tandem.kernels.model_folder import ModelFolderError

if TYPE_CHECKING:
    from collections.abc import Iterable

EOS, PAD = "<|end|>", "<|pad|>"

TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n' }}{% endif %}{% endfor %}"
)
"""For tokenizers without a template: texts one after the other, a line's end after what is not the model's own.

The line's end is an expression: transformers renders with Jinja's `trim_blocks`, which takes a bare one off.
"""


def trained(kind: Literal["bytes", "bpe"], texts: Iterable[str], vocabulary: int) -> Any:  # noqa: ANN401
    """Return a tokenizer of transformers: 256 bytes and two signs, or pairs of them merged to `vocabulary` tokens.

    Args:
        kind: Which.
        texts: What pairs are counted in.
        vocabulary: Tokens of `bpe`, signs included.

    Raises:
        ModelFolderError: A vocabulary smaller than the bytes and the two signs.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    least = 256 + 2
    if kind == "bpe" and vocabulary < least:
        raise ModelFolderError(
            given=f"model.vocabulary = {vocabulary}", allowed=f"at least {least}: bytes and two signs", todo="raise it"
        )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={sign: i for i, sign in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "bpe")
    made.decoder = decoders.ByteLevel()
    if kind == "bpe":
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=alphabet, special_tokens=[EOS, PAD], show_progress=False
        )
        made.train_from_iterator(texts, trainer)
    made.add_special_tokens([EOS, PAD])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    )


def completed(tokenizer: Any, template: str | None, where: str) -> bool:  # noqa: ANN401 - transformers has no types
    """Give a tokenizer what it lacks: a padding token of its own, a template. Return whether a token was added.

    Raises:
        ModelFolderError: It has no EOS: nothing could end a response; or its template takes no message.
    """
    if tokenizer.eos_token_id is None:
        raise ModelFolderError(
            given=f"the tokenizer in {where} has no EOS token",
            allowed="one whose tokenizer_config.json names an eos_token: a response ends with it",
            todo="name it there",
        )
    if template is not None:
        tokenizer.chat_template = template
    elif not getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = TEMPLATE
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template fails in ways of its own
        what = "model.template" if template is not None else f"the chat template in {where}"
        raise ModelFolderError(
            given=f"{what} fails with one message of a user: {type(error).__name__}: {error}",
            allowed="Jinja that renders it, as all prompts of the training are one such message",
            todo="correct it" if template is not None else "give another in model.template",
        ) from error
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return False
    tokenizer.add_special_tokens({"pad_token": PAD})
    return True
