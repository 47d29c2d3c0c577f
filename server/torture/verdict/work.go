// Package verdict tells whether a scheduler kept its promises, from what was
// seen: the ledgers and runs that each primary tells of, what the processes of
// jobs wrote down by themselves, and the faults that were injected meanwhile.
//
// It is pure: it reads no clock, calls nobody and opens no file. It shares no code
// with the scheduler that it judges; when something is due it computes by itself.
// [Judge] never says that a promise was kept because nothing was seen: what could
// not be seen is a doubt, and what nobody was asked to look at is named
// ([Judgement.Unlooked]).
package verdict

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// ExitAgain is the exit code of an attempt that fails because its job is to.
const ExitAgain = 75

// EffectsVariable is the environment variable that names the directory in which
// an attempt writes down what it does; empty or unset: nowhere.
const EffectsVariable = "TORTURE_EFFECTS"

// Work is what each attempt of a job does. It prints what [Work.Printed] says,
// and, where it is given a directory, writes down its begin and its end.
type Work struct {
	Lines   int           // of output, beside the first and the last
	Padding int           // more bytes on each line
	Pause   time.Duration // after each line, in whole seconds
	Fails   int           // attempts up to this number exit with ExitAgain
}

// Script returns what /bin/sh -e has to run for it.
func (w Work) Script() string {
	var b strings.Builder
	// A shell says so when a child of its is killed before itself, which would stand
	// in the log; what goes wrong in tell has to.
	b.WriteString(`exec 3>&2 2>/dev/null
me="$SCHEDD_RUN_ID $SCHEDD_ATTEMPT $SCHEDD_FENCE $SCHEDD_SCHEDULED_AT $SCHEDD_JOB"
tell() {
	{ [ -z "$` + EffectsVariable + `" ] || echo "$1 $me $(date -u +%Y-%m-%dT%H:%M:%SZ 2>/dev/null)" >>"$` + EffectsVariable + `/$SCHEDD_WORKER"; } 2>&3
}
tell begin
echo "begin $me"
i=1
`)
	fmt.Fprintf(&b, "while [ $i -le %d ]; do\n\techo \"line $i of $SCHEDD_RUN_ID%s\"\n\ti=$((i + 1))\n", w.Lines, w.padding())
	if w.Pause > 0 {
		fmt.Fprintf(&b, "\tsleep %d\n", int64(w.Pause/time.Second))
	}
	b.WriteString("done\necho \"end $me\"\ntell end\n")
	if w.Fails > 0 {
		fmt.Fprintf(&b, "[ $SCHEDD_ATTEMPT -gt %d ] || exit %d\n", w.Fails, ExitAgain)
	}
	return b.String()
}

func (w Work) padding() string {
	if w.Padding == 0 {
		return ""
	}
	return " " + strings.Repeat(".", w.Padding-1)
}

// Printed returns what an attempt that came to its end has printed, byte for
// byte.
func (w Work) Printed(r Run, a Attempt) []byte {
	me := fmt.Sprintf("%s %d %d %s %s", r.ID, a.Number, a.Fence, r.Nominal.UTC().Format(time.RFC3339Nano), r.Job)
	var b bytes.Buffer
	fmt.Fprintf(&b, "begin %s\n", me)
	for i := range w.Lines {
		fmt.Fprintf(&b, "line %d of %s%s\n", i+1, r.ID, w.padding())
	}
	fmt.Fprintf(&b, "end %s\n", me)
	return b.Bytes()
}

// CheckLog says what is wrong with the log that a primary has of an attempt; ""
// when nothing is. complete tells that the primary says that nothing will be added.
func (w Work) CheckLog(r Run, a Attempt, log []byte, complete bool) string {
	printed := w.Printed(r, a)
	same := 0
	for same < min(len(log), len(printed)) && log[same] == printed[same] {
		same++
	}
	whole := a.Outcome == Succeeded || a.Outcome == Failed
	switch {
	case same < len(log):
		return fmt.Sprintf("byte %d of %d is none that the process printed", same, len(log))
	case whole && same < len(printed):
		return fmt.Sprintf("it has %d bytes, and the process printed %d", len(log), len(printed))
	case !complete && a.Outcome != Lost:
		return fmt.Sprintf("it has %d bytes and is said to go on, and the attempt has ended", len(log))
	}
	return ""
}
