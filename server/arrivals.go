package server

import (
	"net"
	"runtime"
	"time"
)

// arrivals is a listener that takes connections as fast as the processors can serve them,
// and no faster. When a load balancer has restarted, ten thousand workers are back at
// once. If all of them were let in, each would get ever so little of the processors, and so
// would what a run needs on its way to a worker. So who comes waits in front of the door,
// in the kernel's queue, where it costs nothing; and who has given up waiting there is not
// served at all.
type arrivals struct{ net.Listener }

const (
	// atLeisure is how long all that is ready to run takes to have its turn, at most, when
	// the processors keep up.
	atLeisure = time.Millisecond
	// patient is for how long a connection lets all others go first, again and again:
	// somebody always is ready to run on a busy primary, and it is to be reached all the same.
	patient = 5 * time.Millisecond
)

// Accept implements [net.Listener]. Whoever has left waits for nobody: however many have, the
// next one is let in.
func (a arrivals) Accept() (net.Conn, error) {
	letOthersGoFirst()
	for {
		conn, err := a.Listener.Accept()
		if err != nil || !hasLeft(conn) {
			return conn, err
		}
		_ = conn.Close() // nobody is there to be told
	}
}

// letOthersGoFirst returns when what was ready to run has had its turn at leisure, or after
// a while: those who were let in before are served first.
func letOthersGoFirst() {
	for first := time.Now(); ; {
		began := time.Now()
		runtime.Gosched()
		if now := time.Now(); now.Sub(began) < atLeisure || now.Sub(first) >= patient {
			return
		}
	}
}
