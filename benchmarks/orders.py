"""A worker's line to the coordinator: a unix socket, which becomes its standard input and output."""

import json
import os
import socket
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "AIOPG_BENCH_FOLDER"
"""Names the folder of a team: its socket, and a file for what each rank writes to standard error."""
SOCKET_NAME = "orders"


def error_file(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.txt"


class Answers:
    """The way back. Nothing else may write there: what a library prints goes to standard error."""

    def __init__(self, descriptor: int) -> None:
        self._out = os.fdopen(descriptor, "w", buffering=1)

    def send(self, **answer: Any) -> None:
        self._out.write(json.dumps(answer) + "\n")


def report_for_duty(rank: int) -> Answers:
    """Connect this process to the coordinator: orders are on standard input from here on."""
    folder = Path(os.environ[FOLDER_VARIABLE])
    with error_file(folder, rank).open("wb") as errors:
        os.dup2(errors.fileno(), 2)
    os.dup2(2, 1)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / SOCKET_NAME))
        os.dup2(connection.fileno(), 0)
    answers = Answers(os.dup(0))
    answers.send(rank=rank)
    return answers
