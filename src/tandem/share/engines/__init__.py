"""Engines: what carries out the instructions of the state machine (see `tandem.share.node.engine`)."""
