"""Tests of what a hostile peer, member or stranger can do."""
