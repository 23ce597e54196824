"""Parts of ``communication_liana.py``: cells, LIANA's ranking, distances, agreement and tables."""
