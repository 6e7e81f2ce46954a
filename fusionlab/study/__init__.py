"""Studies: several members trained on identical terms, and the report that compares them."""
