"""The hybrid engine's decoding side: the weights that train write the rollouts, without a copy of them.

`generate` is what one calls. `decoder` chooses how a model is run: `llama` for models of that shape, `generic` for any
other causal language model of Hugging Face. `sampling` draws tokens, `cache` keeps keys and values, `fused` lays out
weights so that both sides read the same memory. See docs/reference/chat-engine.md.
"""
