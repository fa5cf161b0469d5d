"""Input maps: from standardised features to what the model gets."""
