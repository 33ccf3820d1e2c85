"""The Redis server of the contestants that need one: a child process of rank 0 that saves nothing to disk."""

import socket
import subprocess

from benchmarks.contestants.base import Seat


class RedisServer:
    """Runs where rank 0 listens, or on the other ranks not at all."""

    def __init__(self, seat: Seat) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if seat.listener is not None:
            self._serve(seat.host, seat.port, seat.listener)

    def _serve(self, host: str, port: int, listener: socket.socket) -> None:
        listener.close()  # redis-server takes no listening socket, so it binds the port anew
        command = ["redis-server", "--bind", host, "--port", str(port), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
