"""A project of one's own, and a node of one's own, made from the files in ``templates/``."""
