"""Redis itself: its address, connections, scripts, key names, and signatures on what lies in it."""
