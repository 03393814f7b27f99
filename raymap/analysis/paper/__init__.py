"""Published figures that a run can be set against: data, no torch, no Ray."""
