"""Human pose and any other skeleton: where each joint of one person is."""
