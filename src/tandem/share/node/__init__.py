"""Jobs on a node: what is launched, on what, and how an engine is told."""
