"""Ensembles: several networks in one run, whose predictive distributions are mixed."""
