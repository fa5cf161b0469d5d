"""Settings: composed, resolved, checked and admitted before anything is built from them."""
