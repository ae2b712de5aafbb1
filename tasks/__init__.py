"""What can run remotely: node classes, one module per queue. ``tasks.gpu`` is served by ``worker -Q gpu``."""
