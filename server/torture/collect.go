package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/torture/verdict"
)

// settle waits until all has been decided that was due, and nothing runs any more,
// or until there was time enough for that.
func (t *torture) settle(ctx context.Context) error {
	deadline := time.Now().Add(t.Settle)
	for time.Now().Before(deadline) {
		over := false
		err := t.group.ask(ctx, "look what still runs", func(ctx context.Context, s *server) (err error) {
			over, err = t.over(ctx, s)
			return err
		})
		if err != nil && ctx.Err() == nil {
			t.say("%v", err)
		}
		if over {
			return nil
		}
		if !rest(ctx, time.Second) {
			return ctx.Err()
		}
	}
	t.say("not all has ended %v later", t.Settle)
	return ctx.Err()
}

// over tells whether all that was due is decided and has ended.
func (t *torture) over(ctx context.Context, s *server) (bool, error) {
	for _, j := range t.jobs {
		proof, err := s.jobs.VerifyLedger(ctx, &schedv1.VerifyLedgerRequest{Namespace: t.Namespace, Name: j.Name})
		if err != nil {
			return false, err
		}
		if !decided(proof, j) {
			return false, nil
		}
		runs, err := s.runs.ListRuns(ctx, &schedv1.ListRunsRequest{PageSize: 1, Filter: t.filter(j) + ",active=true"})
		if err != nil || len(runs.GetRuns()) > 0 {
			return false, err
		}
	}
	return true, nil
}

// decided tells whether all instants of a job are.
func decided(proof *schedv1.VerifyLedgerResponse, j verdict.Job) bool {
	due := j.Due()
	return len(due) == 0 || slices.ContainsFunc(proof.GetTriggers(), func(v *schedv1.TriggerVerdict) bool {
		return !v.GetDecidedUntil().AsTime().Before(due[len(due)-1])
	})
}

func (t *torture) filter(j verdict.Job) string { return "namespace=" + t.Namespace + ",job=" + j.Name }

// collect reads all that is known of the jobs, from each server. What can't be read
// is put on record too.
func (t *torture) collect(ctx context.Context) verdict.Record {
	rec := verdict.Record{Jobs: t.jobs, EffectsOf: map[string]bool{}, Closed: t.Closed, LeaderKills: t.LeaderKills, Told: t.Effects != "", Victims: len(t.Victims)}
	t.mu.Lock()
	rec.Faults = slices.Clone(t.faults)
	t.mu.Unlock()
	if t.Crashes != nil {
		rec.Crashes = t.Crashes()
	}
	for _, s := range t.group.servers {
		v, err := t.view(ctx, s)
		if err != nil {
			rec.Unseen = append(rec.Unseen, err.Error())
			continue
		}
		rec.Views = append(rec.Views, v)
	}
	t.readEffects(ctx, &rec)
	return rec
}

// view reads what one server tells.
func (t *torture) view(ctx context.Context, s *server) (verdict.View, error) {
	v := verdict.View{Server: s.address, Ledger: map[string]verdict.Ledger{}}
	for _, j := range t.jobs {
		err := askOne(ctx, s, "verify the ledger of "+j.Name, func(ctx context.Context, s *server) error {
			proof, err := s.jobs.VerifyLedger(ctx, &schedv1.VerifyLedgerRequest{Namespace: t.Namespace, Name: j.Name})
			v.Ledger[j.Name] = ledgerOf(proof)
			return err
		})
		if err != nil {
			return v, err
		}
		var runs []*schedv1.Run
		err = askOne(ctx, s, "list the runs of "+j.Name, func(ctx context.Context, s *server) (err error) {
			runs, err = listRuns(ctx, s, t.filter(j))
			return err
		})
		if err != nil {
			return v, err
		}
		for _, r := range runs {
			v.Runs = append(v.Runs, runOf(r))
		}
	}
	t.readLogs(ctx, s, v.Runs)
	return v, nil
}

// pageSize is how many runs are asked for at once.
const pageSize = 500

func listRuns(ctx context.Context, s *server, filter string) (all []*schedv1.Run, err error) {
	for page := ""; ; {
		resp, err := s.runs.ListRuns(ctx, &schedv1.ListRunsRequest{PageSize: pageSize, PageToken: page, Filter: filter})
		if err != nil {
			return nil, err
		}
		if why := resp.GetIncompleteReason(); why != "" {
			return nil, fmt.Errorf("%w: the list is not whole: %s", errNotYet, why)
		}
		all = append(all, resp.GetRuns()...)
		if page = resp.GetNextPageToken(); page == "" {
			return all, nil
		}
	}
}

// readers is how many logs are read at once.
const readers = 4

// readLogs reads the log of each attempt, and compares it with what was printed.
// When one can't be read for as long as a call is repeated, the others aren't tried.
func (t *torture) readLogs(ctx context.Context, s *server, runs []verdict.Run) {
	work := map[string]verdict.Work{}
	for _, j := range t.jobs {
		work[j.Name] = j.Work
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, r := range runs {
		for i := range r.Attempts {
			a := &r.Attempts[i]
			if a.Outcome == verdict.Unfinished {
				continue
			}
			g.Go(func() error {
				log, complete, err := readLog(ctx, s, r.ID, a.Number)
				if err == nil {
					a.Log = verdict.Log{Read: true, Bytes: len(log), Problem: work[r.Job].CheckLog(r, *a, log, complete)}
				}
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.say("%v", err) // the verdict has a doubt for each log that was not read
	}
}

// readLog reads the log of an attempt that has ended. What is still on its worker
// is waited for.
func readLog(ctx context.Context, s *server, run string, attempt int) (log []byte, complete bool, err error) {
	what := fmt.Sprintf("read the log of attempt %d of run %s", attempt, run)
	read := false
	err = askOne(ctx, s, what, func(ctx context.Context, s *server) (err error) {
		log, complete, err = receiveLog(ctx, s, &schedv1.ReadLogRequest{RunId: run, Attempt: uint32(attempt)})
		if read = err == nil; read && !complete {
			return errNotYet
		}
		return err
	})
	if read {
		err = nil // that it goes on is for the verdict to tell
	}
	return log, complete, err
}

func receiveLog(ctx context.Context, s *server, what *schedv1.ReadLogRequest) (log []byte, complete bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.runs.ReadLog(ctx, what)
	if err != nil {
		return nil, false, err
	}
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return log, complete, nil
		}
		if err != nil {
			return nil, false, err
		}
		log, complete = append(log, piece.GetData()...), piece.GetComplete()
	}
}

// ledgerOf is a ledger as package verdict knows it.
func ledgerOf(proof *schedv1.VerifyLedgerResponse) (l verdict.Ledger) {
	for _, v := range proof.GetTriggers() {
		for _, d := range v.GetDifferences() {
			l.Problems = append(l.Problems, d.GetProblem())
		}
		for _, s := range v.GetSpans() {
			l.Spans = append(l.Spans, verdict.Span{
				First: s.GetFirstTime().AsTime(), Last: s.GetLastTime().AsTime(), Count: s.GetCount(),
				Decision: verdict.Decision(strings.TrimPrefix(s.GetDecision().String(), "DECISION_")), Reason: s.GetReason(),
			})
		}
	}
	if !proof.GetOk() && len(l.Problems) == 0 {
		l.Problems = append(l.Problems, "the ledger is not well, and nothing is said to differ")
	}
	return l
}

// runOf is a run as package verdict knows it.
func runOf(r *schedv1.Run) verdict.Run {
	v := verdict.Run{
		ID: r.GetId(), Job: r.GetJob(), Nominal: moment(r.GetNominalTime()), Created: moment(r.GetCreatedTime()),
		Phase: verdict.Phase(strings.TrimPrefix(r.GetPhase().String(), "PHASE_")), Reason: r.GetReason(),
	}
	for _, a := range r.GetAttempts() {
		v.Attempts = append(v.Attempts, verdict.Attempt{
			Number: int(a.GetNumber()), Fence: a.GetFence(), Worker: a.GetWorkerId(), WorkerName: a.GetWorkerName(),
			Assigned: moment(a.GetAssignedTime()), Started: moment(a.GetStartedTime()), Finished: moment(a.GetFinishedTime()),
			Outcome: verdict.Outcome(strings.TrimPrefix(a.GetOutcome().String(), "OUTCOME_")), ExitCode: int(a.GetExitCode()), Reason: a.GetReason(),
		})
	}
	return v
}

// moment is the zero time where none is given.
func moment(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
