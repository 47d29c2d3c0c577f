package systest

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// Somebody defines a job. It runs on time, its log can be followed while it runs
// and read when it has ended.
func TestMainJob(t *testing.T) {
	story(t, func(w *world) {
		w.startPrimary()
		w.startWorker("shop-1", map[string]string{"zone": "eu"}, 4)
		w.awaitOnline()
		w.does("report", talker(90*time.Second, 10*time.Second))
		j := w.define(job("report", cron("*/5 * * * *", "Europe/Berlin")))
		next := j.GetNextTime().AsTime()
		w.waitUntil(next.Add(time.Second))

		r := w.only("report")
		if late := r.GetAttempts()[0].GetStartedTime().AsTime().Sub(next); late < 0 || late > time.Second {
			w.Errorf("it started %v after %v", late, next)
		}
		stream := must[logStream](w)(w.primary.runs.ReadLog(w.Context(), &schedv1.ReadLogRequest{RunId: r.GetId(), Follow: true}))
		var followed []byte
		var first time.Time // when the first piece came
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				w.Fatal(err)
			}
			if first.IsZero() {
				first = time.Now()
			}
			followed = append(followed, m.GetData()...)
		}
		if first.After(next.Add(10 * time.Second)) {
			w.Errorf("who follows the log hears nothing before %v", first.Sub(next))
		}
		if ended := time.Since(next); ended < 90*time.Second || ended > 93*time.Second {
			w.Errorf("following the log ended after %v", ended)
		}
		if want := w.book.of(r.GetId() + "/1")[0].printed(); !bytes.Equal(followed, want) {
			w.Errorf("%d bytes were followed of %d", len(followed), len(want))
		}
		w.wait(time.Second)
		w.all(w.runsOf("report"), schedv1.Phase_PHASE_SUCCEEDED)
		w.check()
	})
}
