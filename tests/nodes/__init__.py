"""Nodes and functions that the tests run, on real workers and here."""
