"""The built-in nodes, one file each: the file's name is the mark. ``parts/`` holds what several of them are made of."""
