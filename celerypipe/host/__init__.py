"""Other machines: the process that starts and watches workers on each of them, and the manager that asks it to."""
