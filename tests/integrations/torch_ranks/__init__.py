"""Programs of ranks that use torch over a store of aiopg."""
