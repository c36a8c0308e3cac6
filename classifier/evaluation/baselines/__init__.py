"""Other ways of finding attackers, on the same events and at the same false-positive rate.

Each gives every request a score that rises with suspicion and sees nothing later than its request (`sessions` sees the rest of
its window). Where a baseline has a choice that we could make for it, it is made in its favour.
"""
