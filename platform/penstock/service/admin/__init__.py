"""The operator's use cases: keys, models, tenants, prices, usage, health, sweeps."""
