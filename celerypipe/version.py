"""The version of celerypipe, in the one place that every floor may read."""

VERSION = "0.1.0"
