"""Training the bundled reference checkpoint: ``python -m manifoldzoo.extractors.training``."""
