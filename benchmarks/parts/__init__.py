"""The rows of ``bench.py``, one module each, and what they share."""
