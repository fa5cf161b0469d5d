"""Pictures: pure functions from arrays to matplotlib figures, readable at 800 pixels and with colour blindness."""
