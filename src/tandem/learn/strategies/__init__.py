"""How a model lies on the ranks that train it; see `tandem.learn.strategy`."""
