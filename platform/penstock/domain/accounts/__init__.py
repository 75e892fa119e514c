"""Accounts: tokens, prices and cost, and what work will take."""
