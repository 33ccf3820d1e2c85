"""`make test-tls` runs these tests over TLS, and `make test` does not."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from .ranks import HAS_TLS, Ranks, serving


def speaks_tls(port: int) -> bool:
    """Whether TLS 1.3 is what answers there, whoever has signed its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        try:
            with context.wrap_socket(sock) as encrypted:
                return encrypted.version() == "TLSv1.3"
        except ssl.SSLError:
            return False


def test_this_run_is_over_what_it_is_for() -> None:
    """A store that is served, and one that rank 0 hosts: or a run over TLS would prove nothing."""
    with serving() as (url, _):
        assert speaks_tls(urlsplit(url).port or 0) is HAS_TLS
    with Ranks("outlives_rank_0", 2).start() as ranks:
        ranks.line(1)
        assert speaks_tls(ranks.port) is HAS_TLS
