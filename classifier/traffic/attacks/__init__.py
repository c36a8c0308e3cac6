"""Attack families, one a module. `classifier.traffic.families()` finds them; a new one needs no list to be changed."""
