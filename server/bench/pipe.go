package bench

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// pipe is a named pipe in which processes tell that they run. When a line arrives is when
// its process ran: to a pipe that somebody reads, writing takes microseconds.
type pipe struct {
	name string
	file *os.File
	// arrived has, for each caller, what its processes told.
	arrived []chan arrival
	over    chan error // why reading ended

	mu   sync.Mutex // guards seen
	seen map[string]int
}

// arrival is a line that came.
type arrival struct {
	run string
	at  time.Time
}

// newPipe makes a pipe for the processes of so many callers.
func (l *Lab) newPipe(callers int) (*pipe, error) {
	dir, err := l.effects()
	if err != nil {
		return nil, err
	}
	p := &pipe{name: filepath.Join(dir, "pipe"), over: make(chan error, 1), seen: map[string]int{}}
	const anybody = 0o666
	err = errors.Join(syscall.Mkfifo(p.name, anybody), os.Chmod(p.name, anybody))
	if err == nil {
		p.file, err = os.OpenFile(p.name, os.O_RDWR|syscall.O_NONBLOCK, 0) // so that it has a writer at all times
	}
	if err != nil {
		return nil, fmt.Errorf("make a pipe for what processes tell: %w", err)
	}
	for range callers {
		p.arrived = append(p.arrived, make(chan arrival, 16))
	}
	go func() { p.over <- p.read() }()
	return p, nil
}

// argv is a process of a caller that tells which run it is, and ends.
func (p *pipe) argv(caller int) []string {
	return []string{"/bin/sh", "-c", `echo "$1 $SCHEDD_RUN_ID" >"$0"`, p.name, strconv.Itoa(caller)}
}

// read reads until the pipe is closed.
func (p *pipe) read() error {
	lines := bufio.NewScanner(p.file)
	for lines.Scan() {
		at := time.Now()
		first, run, _ := strings.Cut(lines.Text(), " ")
		caller, err := strconv.Atoi(first)
		if err != nil || caller < 0 || caller >= len(p.arrived) {
			return fmt.Errorf("read what processes tell: %q is not what they are to tell", lines.Text())
		}
		p.mu.Lock()
		p.seen[run]++
		p.mu.Unlock()
		select {
		case p.arrived[caller] <- arrival{run, at}:
		default: // nobody waits for so many; they are counted
		}
	}
	if err := lines.Err(); !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("read what processes tell: %w", err)
	}
	return nil
}

// count holds what was told against the runs that were asked for: how many were never
// started, and how many processes there were beyond one for each.
func (p *pipe) count(asked []string) (missed, twice int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	processes := 0
	for _, n := range p.seen {
		processes += n
	}
	for _, run := range asked {
		if p.seen[run] == 0 {
			missed++
		}
	}
	return missed, processes - (len(asked) - missed)
}

func (p *pipe) close() error { return errors.Join(p.file.Close(), <-p.over) }
