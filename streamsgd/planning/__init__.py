"""Which rows when: integers in, integers out."""
