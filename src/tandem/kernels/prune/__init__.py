"""Pruning: which weights of a language model can go, and what is left of the model without them.

From the command line (`tandem kernels prune`), or in Python:

    text = Path("some.txt")
    plan = Plan(model=Path("dense"), out=Path("sparse"), method="wanda", pattern=Pattern(0.6), calibration=text)
    outcome = run(plan)                                      # tandem.kernels.prune.running

A model is pruned block by block: the calibration text's activations go through one block at a time, each linear layer
sees its own inputs, and what comes out of the pruned block goes into the next one. A method is a file of `methods/`.

Limits: linear layers inside the blocks are pruned (`nn.Linear`, and GPT-2's `Conv1D`); embeddings, the head, norms and
experts stored as one tensor stay dense, and the report says so. The model has to fit in memory.
"""
