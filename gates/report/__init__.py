"""Evidence for people: figures of a validation run."""
