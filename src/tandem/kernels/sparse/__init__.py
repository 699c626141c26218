"""Products with sparse weights: stored as bitmaps and nonzeros, decoded inside the kernel, multiplied densely.

`format` packs and unpacks, `files` stores, `reference` says what is right, `backends` are the ways to compute,
`linear` is the module that a model holds, `model` swaps a model's layers. See docs/reference/sparse-format.md.
"""
