"""Parts that several built-in nodes are made of; none of them is a node."""
