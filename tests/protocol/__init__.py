"""What the number of the protocol is held to: the sources that say what stands in Redis between runners and workers."""
