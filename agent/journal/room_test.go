package journal

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// names returns the files of a disk, sorted.
func (d *memDisk) list() (names []string) {
	for n := range d.names {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// A file grows once for many records. Who opens it after a crash finds them, goes on in what
// room there is, and takes that for no damage. Who closes it leaves none.
func TestRoomForMore(t *testing.T) {
	const room = 1000
	d := newMemDisk()
	d.makes = room
	j, _ := openMem(t, d)
	var history []Record
	add := func(j *Journal, run string) {
		r := rec(Accepted, run, uint64(len(history)+1))
		appendAll(t, j, r)
		history = append(history, r)
	}
	length := func() int { return len(d.names[name].data) }
	add(j, "first")
	want := int(j.size) + room
	for i := range 5 {
		if got := length(); got != want {
			t.Fatalf("with %d records it has %d bytes, want %d", len(history), got, want)
		}
		add(j, fmt.Sprint("more-", i))
	}
	d = d.crash(func(n int) int { return n - 1 })
	again, es := openMem(t, d)
	if diff := cmp.Diff(remember(history), viewOf(es, again)); diff != "" {
		t.Errorf("after a crash (-want +got):\n%s", diff)
	}
	add(again, "late")
	if got := length(); got != want {
		t.Errorf("after a crash, and one more record, it has %d bytes, want %d", got, want)
	}
	for int(again.size) < want {
		add(again, fmt.Sprint("fill-", len(history)))
	}
	if got := length(); got != int(again.size)+room {
		t.Errorf("with a record behind its end it has %d bytes, want %d", got, again.size+room)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if got := length(); got != int(again.size) {
		t.Errorf("closed it has %d bytes, want %d", got, again.size)
	}
	if got := d.list(); !slices.Equal(got, []string{name}) {
		t.Errorf("there are %v, want the journal alone", got)
	}
}

// What is left of a write that was torn in the room is set aside, and nothing is ever
// written before it.
func TestTornInTheRoom(t *testing.T) {
	d := newMemDisk()
	d.makes = 1000
	j, _ := openMem(t, d)
	appendAll(t, j, rec(Accepted, "a", 1))
	torn := encodeBatch([]*Record{{Kind: Accepted, Key: Key{"b", 1}, Fence: 2, Time: epoch, Payload: []byte("whole")}}, j.size, j.size, 2)
	torn = torn[:len(torn)-3]
	copy(d.names[name].data[j.size:], torn)
	again, es := openMem(t, d)
	if len(es) != 1 || len(d.names[name].data) != int(again.size) {
		t.Errorf("%d attempts in %d bytes, want one in %d", len(es), len(d.names[name].data), again.size)
	}
	if kept := d.names[name+".damaged-1"]; kept == nil || !bytes.HasPrefix(kept.data, torn) {
		t.Errorf("of the torn write there is left: %v", d.list())
	}
}

// On a disk that is nearly full there is no room to spare: what fits is taken as before.
func TestNoRoomOnAFullDisk(t *testing.T) {
	d := newMemDisk()
	d.makes = 1000
	j, _ := openMem(t, d)
	j.compactMin = 1 << 30
	d.room = 500
	var history []Record
	for {
		r := rec(Accepted, fmt.Sprint("run-", len(history)), uint64(len(history)+1))
		if err := j.Append(r); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		history = append(history, r)
	}
	if left := d.room; len(history) < 5 || left >= frameSize(&history[0]) {
		t.Errorf("of 500 bytes it took %d records, and left %d", len(history), left)
	}
	again, es := openMem(t, d)
	if diff := cmp.Diff(remember(history), viewOf(es, again)); diff != "" {
		t.Errorf("opened again (-want +got):\n%s", diff)
	}
}
