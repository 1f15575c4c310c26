"""What `policies.py` is made of: pools of known risk, rivals, and counts of kept promises."""
