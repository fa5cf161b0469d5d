"""Cross-validation: one fit for each fold, and one table over them."""
