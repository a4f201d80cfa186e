package check

// findHeld finds that deleted files take more space than they may.
func findHeld(c checked) []Finding {
	held := c.report.Held
	if held == nil {
		return nil
	}
	level, limit := Warning, c.options.WarningHeld
	switch {
	case c.options.CriticalHeld > 0 && held.Bytes > c.options.CriticalHeld:
		level, limit = Critical, c.options.CriticalHeld
	case c.options.WarningHeld > 0 && held.Bytes > c.options.WarningHeld:
	default:
		return nil
	}
	return findingf(level, FindingHeld, "os-rescue status says who holds what", "deleted files that are still open (%d) take %s, more than %s",
		held.Files, size(held.Bytes), size(limit))
}
