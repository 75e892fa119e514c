"""`penstock map`, step by step: `plan` is what is asked, then `submission`, `progress`, `joining`."""
