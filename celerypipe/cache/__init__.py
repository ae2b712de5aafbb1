"""The result cache: what a node made of an input is remembered by what was asked, and computed once."""
