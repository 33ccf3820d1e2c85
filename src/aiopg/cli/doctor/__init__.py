"""`aiopg doctor`: looks at everything between here and a store, and says in plain words what to mend."""

from aiopg.cli.doctor._command import add_parser

__all__ = ["add_parser"]
