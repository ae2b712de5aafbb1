"""Which celerypipe this process runs, in the one place that every floor may read."""

VERSION = "0.1.0"
