package guard

// trigger wakes a loop that waits on it. If it is fired twice before the loop comes to
// it, the work is done once.
type trigger chan struct{}

func newTrigger() trigger { return make(trigger, 1) }

// fire never blocks.
func (t trigger) fire() {
	select {
	case t <- struct{}{}:
	default:
	}
}
