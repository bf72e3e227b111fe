"""The order of the stages: live, conduct, build, and the policy that decides."""
