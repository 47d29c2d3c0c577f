package agent

import "strings"

// watchRunner takes note of whether the runner is in trouble, until the agent ends. No
// attempts are taken while it is: it may start them late, or forget them.
func (t *table) watchRunner() {
	for {
		why, changed := t.lasting.Trouble()
		t.noteRunner(why)
		select {
		case <-changed:
		case <-t.closing:
			return
		}
	}
}

func (t *table) noteRunner(why string) {
	why = strings.ToValidUTF8(why[:min(len(why), maxReason)], "?")
	t.mu.Lock()
	defer t.mu.Unlock()
	if why == t.ailing {
		return
	}
	if t.ailing = why; why == "" {
		t.log.Info("the runner works again: this worker takes attempts")
	} else {
		t.log.Error("THIS WORKER TAKES NO ATTEMPTS until its runner works again; have a look at it", "why", why)
	}
	for box := range t.boxes {
		box.AskInventory()
	}
}

// troubleLocked returns why no attempts are taken, or "".
func (t *table) troubleLocked() string {
	if t.trouble != "" {
		return t.trouble
	}
	return t.ailing
}
