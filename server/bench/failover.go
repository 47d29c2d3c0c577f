package bench

import (
	"context"
	"fmt"
	"slices"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/bench/report"
	"github.com/schedd/schedd/server/local"
)

var failover = Scenario{
	Name: "failover",
	What: "from SIGKILL of the leader of three primaries to the next process of a job that is due each second",
	Run:  runFailover,
}

func runFailover(ctx context.Context, l *Lab, r *report.Result) error {
	const primaries, workers = 3, 3
	c, err := l.Start(ctx, Setup{Primaries: primaries, Workers: workers, Slots: slots})
	if err != nil {
		return err
	}
	b, err := startBeats(ctx, l, c)
	if err != nil {
		return err
	}
	kills := Pick(l, 20, 2)
	var all silences
	for i := range kills {
		leader, err := c.leader(ctx)
		if err != nil {
			return err
		}
		s, err := b.kill(ctx, leader.Down)
		if err != nil {
			return err
		}
		l.Say("%d of %d: %v after %s was killed; %v for any job", i+1, kills, s.full.Round(resolution), leader.Name(), s.any.Round(resolution))
		all.add(s)
		if err := leader.Up(); err != nil {
			return err
		}
		if err := c.refresh(ctx); err != nil {
			return err
		}
	}
	r.Add("next fire, median", all.full(0.5), "s")
	r.Add("next fire, worst", all.full(1), "s")
	r.Add("next fire of any job, median", all.any(0.5), "s")
	r.Note(fmt.Sprintf("Kills at random moments: %d, with %d workers. Counted is the first start of a process for an occurrence that came due after the kill: "+
		"of a job due at each full second, and of any of ten, each due at another tenth of a second.", kills, workers))
	r.Note("The killed primary is started again, and with it the agents of all workers, before the next kill.")
	return b.judge(ctx, r)
}

// leader returns the primary that all of them take for the leader.
func (c *Cluster) leader(ctx context.Context) (*local.Daemon, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		id, err := c.agreed(ctx)
		at := slices.IndexFunc(c.Local.Primaries(), func(d *local.Daemon) bool { return d.Name() == id })
		if err == nil && at >= 0 {
			return c.Local.Primaries()[at], nil
		}
		if !rest(ctx, lookAgain) {
			return nil, fmt.Errorf("find the leader: the primaries do not agree on one of them (%q): %w", id, err)
		}
	}
}

// agreed returns the leader's id if all primaries name the same one, and it has a link
// with each of them.
func (c *Cluster) agreed(ctx context.Context) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, oneCall)
	defer cancel()
	for _, client := range c.Clients {
		s, err := client.Cluster.GetStatus(ctx, &schedv1.GetStatusRequest{})
		if err != nil {
			return "", fmt.Errorf("ask %s: %w", client.Address, err)
		}
		leader := s.GetStatus().GetLeaderId()
		unlinked := slices.ContainsFunc(s.GetStatus().GetPrimaries(), func(p *schedv1.Primary) bool {
			return p.GetRole() == schedv1.PrimaryRole_PRIMARY_ROLE_UNSPECIFIED
		})
		if unlinked || id != "" && id != leader {
			return "", nil
		}
		id = leader
	}
	return id, nil
}
