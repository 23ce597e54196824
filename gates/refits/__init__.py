"""Heads refitted without a part of a panel, and scored on it."""
