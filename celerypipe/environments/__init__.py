"""Environments of their own for nodes: packages and a Python besides those that celerypipe itself runs with."""
