"""Traffic for training and tests: simulated logs, and attackers woven into a user's own log."""

from classifier.traffic.family import GRADES, AttackFamily, families
from classifier.traffic.injection import inject, to_weave
from classifier.traffic.simulation import Each, Simulated, simulate, simulated

__all__ = ["GRADES", "AttackFamily", "Each", "Simulated", "families", "inject", "simulate", "simulated", "to_weave"]
