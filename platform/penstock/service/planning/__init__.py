"""From an input file to slices: validate, order, cut."""
