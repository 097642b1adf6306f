"""Follow patients over time: group scans, bring them to one place, measure the change."""
