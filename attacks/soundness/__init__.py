"""Whether a number may be believed: probes of a model and of the attacks on it, and the escalation of a red flag."""
