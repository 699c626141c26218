"""Mistakes in what is to be generated."""

from __future__ import annotations

from tandem.core.errors import TandemError


class GenerationError(TandemError):
    """Prompts or settings that nothing can be generated from, or a model whose logits no token can be drawn from."""
