"""The names of the plots, for who draws them and for who shows them."""

from benchmarks.figures import GROUP


def plot_name(question: str, operation: str) -> str:
    """Return the file name of one plot."""
    name = operation if question == GROUP else f"{question}-{operation}"
    return f"{name.replace(' ', '-').replace('_', '-')}.svg"
