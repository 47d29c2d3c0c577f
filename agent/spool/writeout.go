package spool

import "os"

const (
	// outStep is how much of a file the disk takes at a time. All of a large one would be
	// in front of whatever else is synced meanwhile, such as the journal of a start.
	outStep = 4 << 20

	// outsAtOnce is how many files the disk takes a step of at the same time: a hundred
	// processes may end in the same moment.
	outsAtOnce = 2

	// outEarly is the most that one look at a file has the disk begin to take, and outLeast
	// is how much is worth it.
	outEarly = 16 << 20
	outLeast = 1 << 20
)

// writeEarly has the disk begin to take what the process has written, so that little is
// left to wait for when it ends. Not what is over the limit: it may be given back before
// the disk has seen it. Nobody waits for that: a disk that hangs would hold up whoever
// looks after the process, and who reads its output.
func (l *Log) writeEarly(size int64) {
	to := min(size, l.meta.limit, l.begun+outEarly) / page * page
	if size < l.begun { // it was truncated
		l.begun = 0
		return
	}
	if to-l.begun < outLeast {
		return
	}
	select {
	case l.spool.outs <- struct{}{}:
	default: // the disk is busy with others, and would hold up whoever looks; the next look tries again
		return
	}
	from, path := l.begun, l.path
	l.begun = to
	go func() {
		defer func() { <-l.spool.outs }()
		f, _, err := openOwn(path, os.O_RDWR)
		if err != nil || f == nil {
			return // it is looked for again when it is sealed
		}
		defer func() { _ = f.Close() }()              // nothing was written through it
		_ = l.spool.disk.WriteOut(f, from, to, false) // what goes wrong, the sync of the seal is told
	}()
}

// settle is called when the process has ended, before the log is sealed, and has the disk
// take a large file, step by step. It does not hold the turn meanwhile: what was reported
// is read, and shipped.
func (l *Log) settle() error {
	if err := l.enter(); err != nil {
		return err
	}
	m, path := l.meta, l.path
	l.leave()
	if m.sealed || m.mark == 0 { // it was not even looked at: it is short
		return nil
	}
	f, size, err := openOwn(path, os.O_RDWR)
	if err != nil || f == nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written through it
	return l.spool.writeAll(f, size, m)
}

// writeAll has the disk take a file step by step, but for the hole in it. What is left is
// less than a step.
func (s *Spool) writeAll(f *os.File, size int64, m meta) error {
	for from := int64(0); from+outStep <= size; from += outStep {
		if from >= m.room() && from < m.hole {
			from = m.hole
		}
		if err := s.writeStep(f, from, min(from+outStep, size)); err != nil {
			return err
		}
	}
	return nil
}

// writeStep has the disk take a part of a file, when it is its turn.
func (s *Spool) writeStep(f *os.File, from, to int64) error {
	s.outs <- struct{}{}
	defer func() { <-s.outs }()
	return s.disk.WriteOut(f, from, to, true)
}
