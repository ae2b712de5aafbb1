"""The stand-in of a warped node: a message goes out, its result comes back, in order, in time."""
