"""Whether a store answers: `healthcheck.py HOST PORT`. The exit code is 0 if it does, 1 if not.

It greets the store and looks at its answer (docs/protocol.md), which needs no token and leaves nothing behind. That the
port is open would only say that the kernel accepts connections. Not for a store with TLS.
"""

import socket
import sys

MAGIC = b"aipg\r\n\x1a\x00"
HELLO = MAGIC + bytes((0, 1, 0, 1)) + bytes(4 + 32 + 16)  # version 1, and a nonce that nobody will rely on
SECONDS = 3.0


def main(host: str, port: str) -> int:
    """Greet the store there; returns the exit code."""
    try:
        with socket.create_connection((host, int(port)), timeout=SECONDS) as sock:
            sock.sendall(HELLO)
            answer = b""
            while len(answer) < 64 and (data := sock.recv(64)):
                answer += data
    except OSError as error:
        print(f"no store answers at {host}:{port}: {error}", file=sys.stderr)
        return 1
    if len(answer) < 64 or not answer.startswith(MAGIC):
        print(f"what answers at {host}:{port} is no store: {answer[:64]!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
