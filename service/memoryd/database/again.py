"""Transactions that begin again."""

from __future__ import annotations


class BeginAgain(Exception):
    """Raised by the body of a transaction to give back its locks and run once more."""
