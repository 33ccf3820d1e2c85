"""Tests that look at a screen: they need packages of Debian's, which they name where one is missing."""
