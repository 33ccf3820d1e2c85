"""Programs of somebody who has installed aiopg: between them they use every public name.

Each file is a program of its own, which imports nothing but aiopg and runs as it stands. tests/test_packaging.py runs
them, has mypy --strict check them against the package as it is installed, and fails while a public name is in none.
"""
