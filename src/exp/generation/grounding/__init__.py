"""Grounded decoding: names in answers are words of the row's own input (docs/decisions/009)."""
