"""Nulls: what the same procedure gives where there is nothing to find."""
