"""Tests of the sans-IO core: no sockets, no clocks, no waiting."""
