"""How work goes on: dispatch, claim, flush, settle, close."""
