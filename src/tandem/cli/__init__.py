"""The `tandem` command: one module per noun."""
