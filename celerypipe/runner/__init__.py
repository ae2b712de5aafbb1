"""The runner's wing: what happens in the process that runs a pipeline."""
