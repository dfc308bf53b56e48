"""Any Keras layer: its parts, whether they are trainable, and copies of it."""
