"""The commands about machines and the workers on them."""
