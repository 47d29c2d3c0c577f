package systest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// Somebody follows a log while the primary is killed and stopped, and goes on
// where the connection broke: there is every byte, once.
func TestFollowOverRestarts(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.does("j", talker(5*time.Minute, time.Second))
		w.define(job("j"))
		r := w.run("j")
		var followed []byte
		var breaks int
		for complete := false; !complete; {
			ctx, cancel := context.WithTimeout(w.Context(), time.Minute) // the reader's patience, not the log's end
			stream := must[logStream](w)(w.primary.runs.ReadLog(ctx, &schedv1.ReadLogRequest{RunId: r.GetId(), Follow: true, Offset: int64(len(followed))}))
			var reading sync.WaitGroup
			reading.Go(func() {
				for {
					m, err := stream.Recv()
					if err != nil {
						return
					}
					if m.GetOffset() != int64(len(followed)) {
						w.Errorf("offset %d after %d bytes", m.GetOffset(), len(followed))
					}
					followed, complete = append(followed, m.GetData()...), m.GetComplete()
				}
			})
			time.Sleep(50 * time.Second)
			if breaks++; breaks%2 == 0 {
				w.restart(time.Second)
			} else {
				w.stopPrimary()
				w.startPrimary()
			}
			reading.Wait()
			cancel()
		}
		if want := w.book.of(r.GetId() + "/1")[0].printed(); !bytes.Equal(followed, want) {
			w.Errorf("%d bytes were followed of %d, over %d breaks", len(followed), len(want), breaks)
		}
		w.check()
	})
}

// Somebody watches all runs, and sees each of them end.
func TestWatch(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.takes("j", 3*time.Second)
		w.define(job("j", every(10*time.Second)))
		w.wait(time.Minute)
		ctx, cancel := context.WithCancel(w.Context())
		defer cancel()
		stream, err := w.primary.runs.WatchRuns(ctx, &schedv1.WatchRunsRequest{Filter: "job=j"})
		if err != nil {
			w.Fatal(err)
		}
		seen := map[string]schedv1.Phase{}
		synced := 0
		var watching sync.WaitGroup
		watching.Go(func() {
			for {
				m, err := stream.Recv()
				switch {
				case err != nil:
					if status.Code(err) != codes.Canceled {
						w.Errorf("watching ended with %v", err)
					}
					return
				case m.GetSynced():
					synced++
					if len(seen) < 5 {
						w.Errorf("%d runs before the watch is synced", len(seen))
					}
					continue
				}
				r := m.GetRun()
				if r.GetPhase() < seen[r.GetId()] {
					w.Errorf("run %s went from %v back to %v", r.GetId(), seen[r.GetId()], r.GetPhase())
				}
				seen[r.GetId()] = r.GetPhase()
			}
		})
		w.wait(5 * time.Minute)
		w.settle(time.Minute)
		w.wait(time.Second)
		cancel()
		watching.Wait()
		runs := w.runsOf("j")
		for _, r := range runs {
			if seen[r.GetId()] != r.GetPhase() {
				w.Errorf("run %s is %v, and was last seen as %v", r.GetId(), r.GetPhase(), seen[r.GetId()])
			}
		}
		if synced != 1 || len(seen) != len(runs) {
			w.Errorf("synced %d times, saw %d runs of %d", synced, len(seen), len(runs))
		}
		w.checkAll()
	})
}

// A process prints more than its log may hold: the beginning and the end of it
// are kept, and everybody is told how much is not.
func TestLogLimit(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.logLimit = 64 << 10
		w.does("j", flood(2*time.Minute, 1<<20, 200))
		w.define(job("j", policy(&schedv1.Policy{LogLimitBytes: int64(w.logLimit)})))
		r := w.run("j")
		w.wait(time.Minute)
		k.link.reset()
		w.restart(time.Second)
		w.awaitPhase(r.GetId(), 5*time.Minute, phaseSucceeded)
		w.check()
		if a := w.get(r.GetId()).GetAttempts()[0]; a.GetLogDroppedBytes() == 0 || a.GetLogBytes() > 65<<10 {
			w.Errorf("the log has %d bytes, and %d were dropped", a.GetLogBytes(), a.GetLogDroppedBytes())
		}
	})
}

// What the API has acknowledged outlives a SIGKILL that comes right after, and a
// request that is repeated until it is answered is carried out once.
func TestAcknowledgedIsKept(t *testing.T) {
	seeds(t, 3, func(w *world, dice *rand.Rand) {
		shop(w)
		w.slow(dice)
		w.define(job("by-hand", policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW})))
		var wrote sync.WaitGroup
		var mu sync.Mutex
		acked := map[string]uint64{} // versions by job
		asked := map[string]string{} // runs by request
		var up atomic.Pointer[primary]
		up.Store(w.primary)
		for writer := range 5 {
			wrote.Go(func() {
				for i := range 40 {
					name, request := fmt.Sprint("j-", writer, "-", i%7), fmt.Sprint(writer, "-", i)
					for {
						if p := up.Load(); p != nil {
							put, err := p.jobs.PutJob(w.Context(), &schedv1.PutJobRequest{Job: job(name, func(j *schedv1.Job) { j.Description = request })})
							var run *schedv1.RunJobResponse
							if err == nil {
								run, err = p.jobs.RunJob(w.Context(), &schedv1.RunJobRequest{Name: "by-hand", RequestId: request})
							}
							if err == nil {
								mu.Lock()
								acked[name], asked[request] = put.GetJob().GetVersion(), run.GetRun().GetId()
								mu.Unlock()
								break
							}
							if c := status.Code(err); c != codes.Unavailable && c != codes.Canceled && c != codes.Aborted {
								w.Errorf("a write failed with %v", err)
								return
							}
						}
						time.Sleep(50 * time.Millisecond)
					}
				}
			})
		}
		for range 6 {
			time.Sleep(upTo(dice, 400*time.Millisecond))
			w.restart(0)
			up.Store(w.primary)
		}
		wrote.Wait()
		w.swift()
		for _, j := range w.jobs() {
			if j.GetVersion() < acked[j.GetName()] {
				w.Errorf("%s has version %d, and %d was acknowledged", j.GetName(), j.GetVersion(), acked[j.GetName()])
			}
			delete(acked, j.GetName())
		}
		if len(acked) > 0 {
			w.Errorf("acknowledged and gone: %v", acked)
		}
		uid := w.runsOf("by-hand")[0].GetJobUid()
		for name, id := range asked {
			w.asked.runs[id] = request{&schedv1.RunJobRequest{Name: "by-hand", RequestId: name}, uid, span{w.born, time.Now()}}
		}
		w.check()
		for _, r := range w.runsOf("by-hand") {
			for request, id := range asked {
				if id == r.GetId() {
					delete(asked, request)
				}
			}
		}
		if runs := w.runsOf("by-hand"); len(asked) > 0 || len(runs) != 200 {
			w.Errorf("%d runs of 200 requests; acknowledged and gone: %v", len(runs), asked)
		}
	})
}

// A worker is removed: not while it is connected or has something to do, unless
// that is asked for. Then what it has is lost, and it is new when it comes back.
func TestRemovedWorker(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.takes("j", 10*time.Minute)
		w.define(job("j"))
		r := w.run("j")
		w.wait(time.Minute)
		remove := func(force bool) error {
			_, err := w.primary.workers.RemoveWorker(w.Context(), &schedv1.RemoveWorkerRequest{Id: w.known("shop-1").GetId(), Force: force})
			return err
		}
		w.refused(remove(false), codes.FailedPrecondition)
		k.link.cut()
		w.wait(2 * time.Minute)
		w.refused(remove(false), codes.FailedPrecondition)
		if err := remove(true); err != nil {
			w.Errorf("removing it by force: %v", err)
		}
		w.wait(time.Second)
		w.ended(w.get(r.GetId()), schedv1.Phase_PHASE_LOST, lost)
		if w.known("shop-1") != nil {
			w.Error("it is still known")
		}
		k.link.mend()
		w.awaitOnline()
		w.wait(20 * time.Minute)
		w.check()
	})
}
