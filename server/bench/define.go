package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

var define = Scenario{
	Name:     "define",
	What:     "PutJob of one new job after the other, from 8 clients",
	Anywhere: true,
	Run:      runDefine,
}

// definers is how many clients define jobs.
const definers = 8

// definition is what is defined: a job that is due each new year.
func definition(name string) *schedv1.Job {
	return Job(name, []string{"/bin/true"}, &schedv1.Trigger{When: &schedv1.Trigger_Cron{Cron: &schedv1.Cron{Expression: "0 3 1 1 *"}}})
}

// newPrefix is a prefix of names that nobody has used.
func newPrefix(scenario string) string { return fmt.Sprintf("%s-%08x-", scenario, rand.Uint32()) }

func runDefine(ctx context.Context, l *Lab, r *report.Result) (err error) {
	prefix := newPrefix("define")
	base, err := l.BareRaft(ctx, definers, proto.Size(definition(prefix+"00000")))
	if err != nil {
		return err
	}
	c, err := l.Start(ctx, Setup{Primaries: 1})
	if err != nil {
		return err
	}
	before, err := c.processor()
	if err != nil {
		return err
	}
	d, err := defineFor(ctx, c, prefix, Pick(l, 20*time.Second, time.Second))
	defer func() { err = errors.Join(err, c.Remove(ctx, d.names)) }()
	if err != nil {
		return err
	}
	after, err := c.processor()
	if err != nil {
		return err
	}
	r.Beside("jobs defined", measure.Rate(len(d.names), d.span), "/s", "a bare Raft loop with 8 callers", base)
	r.Add("acknowledged after p50", measure.Milliseconds(measure.Quantile(d.took, 0.5)), "ms")
	r.Add("acknowledged after p99", measure.Milliseconds(measure.Quantile(d.took, 0.99)), "ms")
	if c.Local != nil {
		r.Add("processor of the primary, each", measure.Milliseconds(after-before)/float64(len(d.names)), "ms")
	}
	lost, err := c.lost(ctx, d.names)
	if err != nil {
		return err
	}
	r.Add("acknowledged and lost", float64(lost), "")
	return nil
}

// defined is jobs that were acknowledged, and how long each of that took.
type defined struct {
	names []string
	took  []time.Duration
	span  time.Duration
}

// defineFor defines new jobs for some time, from several clients.
func defineFor(ctx context.Context, c *Cluster, prefix string, span time.Duration) (all defined, err error) {
	clients, closeAll, err := c.DialMany(definers)
	if err != nil {
		return all, err
	}
	defer closeAll()
	var next atomic.Int64
	parts := make([]defined, len(clients))
	g, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for w, client := range clients {
		g.Go(func() error {
			for time.Since(begin) < span {
				name, start := fmt.Sprint(prefix, next.Add(1)), time.Now()
				if _, err := client.Jobs.PutJob(ctx, &schedv1.PutJobRequest{Job: definition(name)}); err != nil {
					return fmt.Errorf("define the job %s: %w", name, err)
				}
				parts[w].names, parts[w].took = append(parts[w].names, name), append(parts[w].took, time.Since(start))
			}
			return nil
		})
	}
	err = g.Wait()
	all.span = time.Since(begin)
	for _, p := range parts {
		all.names, all.took = append(all.names, p.names...), append(all.took, p.took...)
	}
	return all, err
}

// lost is how many jobs are not there that were acknowledged.
func (c *Cluster) lost(ctx context.Context, names []string) (int, error) {
	missing := make(map[string]bool, len(names))
	for _, name := range names {
		missing[name] = true
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "schedd-consistency", "linearizable")
	for page := ""; ; {
		resp, err := c.Client().Jobs.ListJobs(ctx, &schedv1.ListJobsRequest{PageSize: 1000, PageToken: page, Filter: "namespace=" + Namespace})
		if err != nil {
			return 0, fmt.Errorf("look for the jobs that were defined: %w", err)
		}
		for _, j := range resp.GetJobs() {
			delete(missing, j.GetName())
		}
		if page = resp.GetNextPageToken(); page == "" {
			return len(missing), nil
		}
	}
}

// processor is what the first primary has used of the processors; 0 when it is not ours.
func (c *Cluster) processor() (time.Duration, error) {
	if c.Local == nil {
		return 0, nil
	}
	u, err := UsageOf(c.Local.Primaries()[0].PID())
	return u.Processor, err
}
