"""Where it lives: references, stores, integrity, locking and publishing."""
