"""A private Redis and the workers of a pipeline on this machine, for as long as a block runs."""
