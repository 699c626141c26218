"""The hybrid engine's decoding side: the weights that train write the rollouts, without a copy of them.

`generate` is what one calls. `choosing` says how a model is run: by `native_llama` or `llama` where it has that shape,
by `generic` any other of Hugging Face. `slots` says which row runs where, `sampling` draws tokens,
`cache` keeps keys and values, `fused` lays out weights so that both sides read the same memory, `adapters` merges LoRA.
See docs/reference/chat-engine.md.
"""
