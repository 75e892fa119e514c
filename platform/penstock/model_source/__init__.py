"""A model's source: the folder or Hugging Face id that an engine loads, looked at before the engine is started.

An engine that can't find its model needs half a minute to say so, in pages; a look takes milliseconds, and a question
to the hub a second.
"""
