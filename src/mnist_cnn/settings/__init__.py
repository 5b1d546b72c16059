"""``params.yaml`` as typed, frozen settings; whatever is wrong in it is refused by its full path."""
