"""What the operator allows tenants and keys: rates, what is held at once, what is kept."""
