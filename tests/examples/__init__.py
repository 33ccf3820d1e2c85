"""The examples, as real processes."""
