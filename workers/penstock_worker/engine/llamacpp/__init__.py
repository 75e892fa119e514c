"""llama.cpp: its own server, in this interpreter (xllamacpp)."""
