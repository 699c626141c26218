"""The data path: spaces that hold many small files as one fast, safe, seekable thing, and loaders over them."""
