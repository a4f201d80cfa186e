package recover

// sameBoot is true when the host has not been booted since the run began: only
// then do the numbers of held inodes mean anything.
func sameBoot(records []Record) (bool, error) {
	if len(records) == 0 {
		return true, nil
	}
	head, err := headOf(records)
	if err != nil {
		return false, err
	}
	boot, err := bootID(procDir)
	return boot == head.BootID, err
}

// planOf returns the plan of the run as a whole.
func planOf(records []Record) (Plan, bool, error) {
	for _, r := range records {
		if r.Point() == stepPlan+".done" && r.Instance == "" {
			var plan Plan
			err := r.decode(&plan)
			return plan, true, err
		}
	}
	return Plan{}, false, nil
}
