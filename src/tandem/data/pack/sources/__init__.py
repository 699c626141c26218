"""Where samples come from, one kind a file; see `tandem.data.pack.source` for what a file exposes."""
