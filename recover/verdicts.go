package recover

// Verdicts returns every verdict, the worst first.
func Verdicts() []Verdict {
	return []Verdict{VerdictLost, VerdictConflict, VerdictRecoverable, VerdictUnknown, VerdictDisplaced, VerdictIntact, VerdictUnaffected}
}
