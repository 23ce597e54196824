"""The six rungs of the evidence ladder, one file each."""
