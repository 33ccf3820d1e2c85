"""Certificates for the tests: made anew in each run, by what `aiopg certs` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiopg import Tls
from aiopg.cli._certs import write_certificates


class Certificates:
    """Files of one authority."""

    def __init__(self, directory: Path, names: list[str] | None = None) -> None:
        write_certificates(directory, names or [])
        self.directory = directory
        self.ca = str(directory / "ca.pem")

    @property
    def store(self) -> Tls:
        """A store that asks members for a certificate."""
        return Tls(str(self.directory / "store.pem"), str(self.directory / "store.key"), self.ca)

    @property
    def lenient_store(self) -> Tls:
        """A store that does not."""
        return Tls(str(self.directory / "store.pem"), str(self.directory / "store.key"))

    @property
    def member(self) -> Tls:
        """A member with a certificate."""
        return Tls(str(self.directory / "member.pem"), str(self.directory / "member.key"), self.ca)

    @property
    def nameless_member(self) -> Tls:
        """A member without one, which knows the authority."""
        return Tls(ca=self.ca)


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The authority that both ends believe."""
    return Certificates(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Another one."""
    return Certificates(tmp_path_factory.mktemp("theirs"))
