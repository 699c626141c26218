"""How long applications take together: what was seen of them, and models that predict the rest."""
