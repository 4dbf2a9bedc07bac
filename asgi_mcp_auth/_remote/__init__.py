"""The few things that wait on the network or on time, and own what they start."""
