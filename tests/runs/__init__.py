"""What tests run and read: pipelines of the tests' nodes, questions to a cache, and what comes of them."""
