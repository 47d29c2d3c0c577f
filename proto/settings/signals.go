package settings

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// UntilSignal returns a context that ends with the first SIGTERM or SIGINT. By
// then signals do again what they do by default, so that the second one ends
// the process at once, however soon it comes. It is for a main, once.
func UntilSignal() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() { // as long as the process, which owns it
		<-signals
		signal.Stop(signals)
		select {
		case second := <-signals: // it came in between, and has been caught
			end(second)
		default:
		}
		cancel()
	}()
	return ctx
}

// end does to this process what a signal does by default.
func end(s os.Signal) {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		_ = self.Signal(s) // the next one will do
	}
}
