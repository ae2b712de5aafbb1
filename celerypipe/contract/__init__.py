"""What a node is: the classes to inherit from, ``@node``, and what they are given."""
