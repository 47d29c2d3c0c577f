package systest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
)

// witnesses are people who put, read and delete the same few jobs through any
// primary, and write down what they were told. What they saw has to be possible
// if all calls had come one after the other, each at some moment between its call
// and its answer: linearizable, as Herlihy and Wing call it. So a write that was
// acknowledged and is gone, one that was refused and is there, one that took
// effect twice, and a read of what was long ago, all give themselves away.
type witnesses struct {
	w    *world
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex // guards the following
	history []porcupine.Operation
	job     int       // the number of the one that is used
	since   time.Time // when it was used first
	lost    int       // calls on it without an answer
	rested  bool      // they have little to do at present
}

// question is what a call asks, and answer what came of it.
type (
	question struct {
		job   string
		op    string // "put", "get" or "delete"
		value int    // that was put
	}
	answer struct {
		absent  bool // there was no such job
		value   int  // that was read
		unknown bool // the call failed: it may have had its effect, or not, or have it yet
	}
)

const (
	// witnessFor is how long one job is used, and witnessLost how many of the calls on
	// it may be without an answer. Such a call goes with all that come after it, and
	// the check takes ever longer.
	witnessFor  = 2 * time.Minute
	witnessLost = 6
	// witnessWait is how long people wait for an answer.
	witnessWait = 7 * time.Second
	// witnessPause is how long one pauses at most after each call, and witnessRest when
	// there is little to do.
	witnessPause = 10 * time.Second
	witnessRest  = 3 * time.Minute
	witnessKey   = "value" // of the label that holds what was put
)

// watchWrites starts some of them.
func (w *world) watchWrites(dice *rand.Rand, n int) *witnesses {
	ctx, stop := context.WithCancel(w.Context())
	s := &witnesses{w: w, stop: stop}
	for i := range n {
		own := rand.New(rand.NewPCG(dice.Uint64(), uint64(i)))
		s.wg.Go(func() { s.live(ctx, own, i) })
	}
	return s
}

// live is one of them.
func (s *witnesses) live(ctx context.Context, dice *rand.Rand, id int) {
	way := s.w.net.newLink(fmt.Sprint("witness-", id))
	conn, err := grpc.NewClient("passthrough:///group:"+apiPort, append(wire.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(way.dial))...)
	if err != nil {
		s.w.Error(err)
		return
	}
	defer func() { _ = conn.Close() }() // nobody waits for what it still has to say
	jobs := schedv1.NewJobServiceClient(conn)
	for n := 1; ctx.Err() == nil; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(upTo(dice, s.pause())):
		}
		if dice.IntN(10) == 0 {
			way.reset() // and to another primary
		}
		q := question{
			job: s.current(), op: one(dice, "put", "put", "get", "get", "get", "delete"),
			value: 1000*n + id,
		}
		o := porcupine.Operation{ClientId: id, Input: q, Call: time.Now().UnixNano()}
		a := s.ask(ctx, jobs, q)
		o.Output, o.Return = a, time.Now().UnixNano()
		switch {
		case !a.unknown:
		case q.op == "get":
			continue // it says nothing
		default:
			o.Return = math.MaxInt64
		}
		s.enter(o)
	}
}

// rest gives them little to do from now on, or again as much as there is.
func (s *witnesses) rest(rested bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rested = rested
}

// pause returns how long one pauses at most.
func (s *witnesses) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rested {
		return witnessRest
	}
	return witnessPause
}

// current names the job that is used now.
func (s *witnesses) current() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost >= witnessLost || time.Since(s.since) > witnessFor {
		s.job, s.since, s.lost = s.job+1, time.Now(), 0
	}
	return fmt.Sprint("seen-", s.job)
}

func (s *witnesses) enter(o porcupine.Operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history = append(s.history, o)
	if o.Return == math.MaxInt64 {
		s.lost++
	}
}

// ask makes one call, once.
func (s *witnesses) ask(ctx context.Context, jobs schedv1.JobServiceClient, q question) (a answer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), witnessWait)
	defer cancel()
	var err error
	switch q.op {
	case "put":
		j := job(q.job)
		j.Labels = map[string]string{witnessKey: strconv.Itoa(q.value)}
		_, err = jobs.PutJob(ctx, &schedv1.PutJobRequest{Job: j})
	case "get":
		ctx = metadata.AppendToOutgoingContext(ctx, "schedd-consistency", "linearizable")
		var r *schedv1.GetJobResponse
		if r, err = jobs.GetJob(ctx, &schedv1.GetJobRequest{Name: q.job}); err == nil {
			a.value, err = strconv.Atoi(r.GetJob().GetLabels()[witnessKey])
		}
	case "delete":
		_, err = jobs.DeleteJob(ctx, &schedv1.DeleteJobRequest{Name: q.job})
	}
	switch {
	case status.Code(err) == codes.NotFound:
		a.absent = true
	case err != nil:
		a.unknown = true
	}
	return a
}

// check stops them, and holds what they were told against one job at a time that
// is put, read and deleted.
func (s *witnesses) check() {
	s.w.Helper()
	s.stop()
	s.wg.Wait()
	unknown := 0
	for _, o := range s.history {
		if a, _ := o.Output.(answer); a.unknown {
			unknown++
		}
	}
	if len(s.history) == 0 || unknown > len(s.history)/2 {
		s.w.Errorf("of %d calls %d had no answer: that proves nothing", len(s.history), unknown)
	}
	if !porcupine.CheckOperations(register, s.history) {
		for _, part := range register.Partition(s.history) {
			if !porcupine.CheckOperations(register, part) {
				s.w.Errorf("what people were told of one job can't be:")
				for _, o := range part {
					s.w.Logf("  %s", register.DescribeOperation(o.Input, o.Output)+
						fmt.Sprintf(" by %d from %v to %v", o.ClientId, time.Unix(0, o.Call).UTC(), time.Unix(0, o.Return).UTC()))
				}
			}
		}
	}
	s.w.Logf("%d calls of witnesses, of which %d had no answer", len(s.history), unknown)
}

// register is a job that is there with a value, or not there.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byJob := map[string][]porcupine.Operation{}
		for _, o := range history {
			q, _ := o.Input.(question)
			byJob[q.job] = append(byJob[q.job], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byJob {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return 0 }, // the value; 0: there is no job
	Step: func(state, input, output any) (bool, any) {
		value, _ := state.(int)
		q, _ := input.(question)
		a, _ := output.(answer)
		switch q.op {
		case "put":
			return !a.absent, q.value
		case "get":
			return a.value == value && a.absent == (value == 0), value
		default:
			return a.unknown || a.absent == (value == 0), 0
		}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
}
