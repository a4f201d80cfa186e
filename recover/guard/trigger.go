package guard

// trigger wakes a loop that waits on it. What is due twice before the loop comes to
// it is done once.
type trigger chan struct{}

func newTrigger() trigger { return make(trigger, 1) }

// fire never blocks.
func (t trigger) fire() {
	select {
	case t <- struct{}{}:
	default:
	}
}
