package spool

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// out is what a disk is told to take.
type out struct {
	from, to int64
	wait     bool
}

// told has a spool note what its disk is told to take. What it returns returns all that was
// since it was called last, when the disk is at rest.
func told(s *Spool) (take func() []out) {
	var mu sync.Mutex
	var all []out
	atRest(s)
	s.disk.WriteOut = func(_ *os.File, from, to int64, wait bool) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, out{from, to, wait})
		return nil
	}
	return func() []out {
		atRest(s)
		mu.Lock()
		defer mu.Unlock()
		some := all
		all = nil
		return some
	}
}

// atRest waits until the disk takes nothing.
func atRest(s *Spool) {
	for range outsAtOnce {
		s.outs <- struct{}{}
	}
	for range outsAtOnce {
		<-s.outs
	}
}

// The disk begins to take what a process writes while it still writes, but not what may be
// left out in the end; and when it has ended it takes the rest in steps.
func TestLargeOutputIsWrittenInSteps(t *testing.T) {
	const limit, write = 24 << 20, 10 << 20
	s, l, p := start(t, limit)
	take := told(s)
	look := func(want ...out) {
		t.Helper()
		poll(t, l)
		if got := take(); !slices.Equal(got, want) {
			t.Fatalf("the disk was told to take %v, want %v", got, want)
		}
	}
	p.write(noise(1, outLeast-1))
	look() // too little to be worth it
	p.write(noise(2, write-outLeast+1))
	look(out{0, write, false})
	look()
	p.write(noise(3, write))
	p.write(noise(4, write))
	look(out{write, limit, false}) // the rest is over the limit
	p.write(noise(5, write))
	look()

	seal(t, l)
	all := take()
	for i, o := range all {
		if !o.wait || o.to-o.from > outStep || o.from >= l.meta.room() && o.from < l.meta.hole {
			t.Errorf("%d: %v, want steps, and none of the hole from %d to %d", i, o, l.meta.room(), l.meta.hole)
		}
	}
	if n := len(all); n < 2*limit/outStep-1 || all[n-1].to <= 4*write-outStep {
		t.Errorf("the disk was told to take %v, want all of %d bytes, twice: once while others read", all, 4*write)
	}
}

// When many processes end in the same moment, the disk takes a few steps at a time, and what
// is synced meanwhile waits behind these only.
func TestManyLargeOutputsTakeTurns(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openSpool(t, dir)
		var mu sync.Mutex
		var now, most, all int
		s.disk.WriteOut = func(*os.File, int64, int64, bool) error {
			mu.Lock()
			defer mu.Unlock()
			now, all = now+1, all+1
			most = max(most, now)
			mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			mu.Lock()
			now--
			return nil
		}
		var ends sync.WaitGroup
		for i := range 10 {
			l, err := s.Create(Key{"run", uint32(i + 1)}, 24<<20, "")
			if err != nil {
				t.Fatal(err)
			}
			run(t, l).write(make([]byte, 2*outStep))
			ends.Go(func() {
				if _, _, err := l.Seal(); err != nil {
					t.Error(err)
				}
			})
		}
		ends.Wait()
		if most != outsAtOnce || all != 20 {
			t.Errorf("the disk took %d steps, up to %d at once; want 20, up to %d", all, most, outsAtOnce)
		}
	})
}

// Output that is short by then is looked at anew.
func TestTruncatedOutputIsWrittenAgain(t *testing.T) {
	s, l, p := start(t, 24<<20)
	p.write(noise(1, 2*outLeast))
	poll(t, l)
	if err := p.f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	take := told(s)
	poll(t, l)
	p.write(noise(2, outLeast))
	poll(t, l)
	if got, want := take(), []out{{0, outLeast, false}}; !slices.Equal(got, want) {
		t.Errorf("the disk was told to take %v, want %v", got, want)
	}
}

// A disk that could not take output says so once, and it may be to us rather than to the
// fsync that follows.
func TestOutputThatTheDiskDidNotTakeIsNotSealed(t *testing.T) {
	for _, reported := range []int64{0, outStep} {
		t.Run(fmt.Sprint(reported, " bytes reported"), func(t *testing.T) {
			s, l, p := start(t, 24<<20)
			p.write(noise(1, outStep))
			if reported > 0 {
				poll(t, l)
				atRest(s)
			}
			s.disk.WriteOut = func(*os.File, int64, int64, bool) error { return errors.New("input/output error") }
			if _, _, err := l.Seal(); err == nil || !strings.Contains(err.Error(), "input/output error") {
				t.Errorf("sealed: %v", err)
			}
			s.disk.WriteOut = writeOut
			if length, _ := seal(t, l); length != outStep {
				t.Errorf("sealed at %d, want %d", length, outStep)
			}
		})
	}
}

// How much a file has grown is told also of what is over the half that can be shipped, and
// after it was truncated.
func TestGrowthIsTold(t *testing.T) {
	_, l, p := start(t, MinLimit)
	grown := func(want int64) {
		t.Helper()
		if _, got, err := l.Poll(); got != want || err != nil {
			t.Errorf("it has grown by %d, %v; want %d", got, err, want)
		}
	}
	grown(0)
	p.write(noise(1, 100))
	grown(100)
	p.write(noise(2, 2*MinLimit))
	grown(2 * MinLimit)
	grown(0)
	if !l.Reaches(2*MinLimit+100) || l.Reaches(2*MinLimit+101) {
		t.Errorf("it reaches %d bytes: %v, and one more: %v", 2*MinLimit+100, l.Reaches(2*MinLimit+100), l.Reaches(2*MinLimit+101))
	}
	p.truncate(10)
	grown(0)
	p.write(noise(3, 7))
	grown(7)
}
