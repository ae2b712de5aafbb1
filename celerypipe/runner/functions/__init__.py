"""Functions: a Python function under ``@node`` that runs elsewhere, call by call, without a pipeline around it."""
