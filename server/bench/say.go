package bench

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// teller tells people what happens.
type teller struct {
	mu  sync.Mutex // guards out
	out io.Writer
}

func sayer(out io.Writer) *teller { return &teller{out: out} }

// say tells it in a line, with the time.
func (t *teller) say(format string, args ...any) {
	t.text(time.Now().Format(time.TimeOnly) + "  " + fmt.Sprintf(format, args...) + "\n")
}

// text tells it as it is.
func (t *teller) text(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = io.WriteString(t.out, text) // nobody is left to tell
}
