"""``python -m celerypipe`` is the same as ``celerypipe``."""

from celerypipe.cli import main

if __name__ == "__main__":
    main()
