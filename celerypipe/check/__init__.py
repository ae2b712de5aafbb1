"""What is said of a pipeline before it runs: by its definition, by Redis, by the workers that live."""
