"""Rates: how the budget is shared out among the classes."""
