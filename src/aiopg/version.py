"""Which aiopg this is. A store says it in its descriptions."""

__all__ = ["__version__"]

__version__ = "0.1.0"
